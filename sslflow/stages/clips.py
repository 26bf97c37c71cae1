"""clips: video files to clips of one form, frames and sound, with a row for each file that says what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslflow import paths
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import read
from sslflow.stages.entry import run


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"clips": prepare_clips}


def tell(line: str) -> None:
    """One line to the log, at once."""
    print(line, flush=True)


def main() -> None:
    settings = read(schemas())
    started = time.monotonic()
    counts = prepare_clips(paths.CLIPS, tell, **settings["clips"])
    if not counts["test"]:
        tell("warning: there is no video to test on: nothing that is learnt from these can be evaluated")
    write_metrics(paths.metrics("clips"), counts)
    print(
        f"clips  {counts['clips']} clips ({counts['train']} train, {counts['test']} test) of "
        f"{counts['usable']} videos, {counts['unusable']} unusable, {counts['copies']} copies; "
        f"{counts['silent']} clips silent, {counts['holes']} with holes; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    run(main)
