"""clips NAME: video files to clips of one form, frames and sound, with a row for each file and what became of it."""

from __future__ import annotations

import time

from sslflow import paths
from sslflow.ingest.put_aside import unusable_videos
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import Schemas, read
from sslflow.stages.entry import run


def schemas(clips: str) -> Schemas:
    """The section of params.yaml that this stage reads, and what it configures."""
    return {f"clips.{clips}": prepare_clips}


def tell(line: str) -> None:
    """One line to the log, at once."""
    print(line, flush=True)


def main(name: str) -> None:
    settings = read(schemas(name))[f"clips.{name}"]
    started = time.monotonic()
    counts = prepare_clips(paths.clips(name), tell, **settings)
    for line in unusable_videos(paths.clips(name)):
        tell(line)
    if not counts["test"]:
        tell("warning: there is no video to test on: nothing that is learnt from these can be evaluated")
    write_metrics(paths.metrics("clips", name), counts)
    print(
        f"clips {name}  {counts['clips']} clips ({counts['train']} train, {counts['test']} test) of "
        f"{counts['usable']} videos, {counts['unusable']} unusable, {counts['copies']} copies; "
        f"{counts['silent']} clips silent, {counts['holes']} with holes; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    run(main, str)
