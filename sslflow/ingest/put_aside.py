"""What is said of files that can't be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sslflow.runtime.files import read_csv

EXAMPLES = 5
"""Files that are named with their reasons."""


def unusable_videos(folder: Path) -> Iterator[str]:
    """Lines about a prepared folder's videos that are of no use, copies left out: how many of how many, and the first
    of them with their reasons; none where there are none."""
    rows = read_csv(folder / "videos.csv", ["path", "status"])
    bad = [(row["path"], row["status"]) for row in rows if not row["status"].startswith(("ok", "a copy of "))]
    yield from _lines(bad, f"{len(bad)} of {len(rows)} videos", folder / "videos.csv")


def unusable_images(folder: Path, name: str = "quarantine.csv", what: str = "images") -> Iterator[str]:
    """The same of the images in a folder's table `name`, or of other files, by `what` they are called."""
    file = folder / name
    bad = [(row["path"], row["reason"]) for row in read_csv(file, ["path", "reason"])]
    yield from _lines(bad, f"{len(bad)} {what}", file)


def _lines(bad: list[tuple[str, str]], counted: str, file: Path) -> Iterator[str]:
    if bad:
        yield f"warning: {counted} can't be used; all of them stand in {file}:"
        yield from (f"  {path}: {reason}" for path, reason in bad[:EXAMPLES])
    if len(bad) > EXAMPLES:
        yield f"  and {len(bad) - EXAMPLES} more"
