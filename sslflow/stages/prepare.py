"""prepare: raw images to checked, resized, deduplicated ones that every other stage reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslflow import paths
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.put_aside import unusable_images
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import read
from sslflow.stages.entry import run


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"data": prepare}


def tell(line: str) -> None:
    """One line to the log, at once."""
    print(line, flush=True)


def main() -> None:
    settings = read(schemas())
    started = time.monotonic()
    counts = prepare(paths.PREPARED, tell, **settings["data"])
    for line in unusable_images(paths.PREPARED):
        tell(line)
    write_metrics(paths.metrics("prepare"), counts)
    splits = ", ".join(f"{counts[split]} {split}" for split in ("pool", "train", "test") if counts[split])
    print(
        f"prepare  {counts['images']} images ({splits}), {counts['classes']} classes; "
        f"{counts['quarantined']} quarantined, {counts['duplicates']} duplicates, {counts['leaked']} leaked, "
        f"{counts['other_files']} other files; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    run(main)
