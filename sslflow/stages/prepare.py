"""prepare: raw images, text or volumes to checked, deduplicated examples of one size that every other stage reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslflow import paths
from sslflow.data.formats import UNITS
from sslflow.ingest.images.prepare import prepare as prepare_images
from sslflow.ingest.images.together import Together
from sslflow.ingest.put_aside import unusable_images
from sslflow.ingest.text.prepare import prepare as prepare_text
from sslflow.ingest.volumes.prepare import prepare as prepare_volumes
from sslflow.runtime.files import write_metrics
from sslflow.runtime.turns import Turns
from sslflow.settings.params import read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run

PREPARE: Mapping[str, Callable[..., dict[str, int]]] = {
    "images": prepare_images,
    "text": prepare_text,
    "volumes": prepare_volumes,
}
"""By kinds of data."""
RAW = {"images": "images", "text": "files or lines", "volumes": "volumes"}
"""What one calls what is read, by kinds of data."""


def schemas(kind: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"data": PREPARE[kind]}


def tell(line: str) -> None:
    """One line to the log, at once."""
    print(line, flush=True)


def main() -> None:
    kind = data_kind()
    settings = read(schemas(kind))
    started = time.monotonic()
    turns = Turns()
    together = Together(paths.PARTS, turns)
    more = {"together": together} if kind == "images" else {}
    if turns.rank:
        if more:
            PREPARE[kind](paths.PREPARED, lambda line: None, **more, **settings["data"])
        return
    counts = PREPARE[kind](paths.PREPARED, tell, **more, **settings["data"])
    for line in together.told():
        tell(line)
    together.remove()
    for line in unusable_images(paths.PREPARED, what=RAW[kind]):
        tell(line)
    write_metrics(paths.metrics("prepare"), counts)
    splits = ", ".join(f"{counts[split]} {split}" for split in ("pool", "train", "test") if counts[split])
    unit = UNITS[kind]
    others = [f"{counts['other_files']} other files"] if "other_files" in counts else []
    told = ", ".join([*(f"{counts[one]} {one}" for one in ("quarantined", "duplicates", "leaked")), *others])
    print(
        f"prepare  {counts[unit]} {unit} ({splits}), {counts['classes']} classes; {told}; "
        f"{time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    run(main)
