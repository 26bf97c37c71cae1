"""Captions of prepared images, as they were written."""

from __future__ import annotations

from pathlib import Path

from sslflow.runtime.tables import read_parquet

FILE = "captions.parquet"
"""In a folder of prepared images: the columns row and captions, of the images that have some."""


def captions_of(folder: Path) -> dict[int, list[str]]:
    """Row of a prepared data set → its captions, of those that have some."""
    table = read_parquet(folder / FILE, ["row", "captions"])
    return dict(zip(table["row"].to_pylist(), table["captions"].to_pylist(), strict=True))
