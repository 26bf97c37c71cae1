"""What lies in the raw folders, told without opening a file: how DVC learns that the images are others than before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sslflow.data.folders import visit
from sslflow.data.records import escape
from sslflow.data.sources import directory
from sslflow.files import write_csv

COLUMNS = ("setting", "path", "size", "mtime_ns")
UNREADABLE = "unreadable"
IN_FOLDERS = ("folder", "imagefolder", "idx")

Row = tuple[str, str, str | int, str | int]


def write_listing(
    file: Path, *, source: str, path: str = "data/raw", probe_source: str = "same", probe_path: str = "data/raw"
) -> int:
    """Replace `file` by a table of the files and folders that the sources would look at; the number of its rows.

    `setting` says where a row was found (`path` or `probe_path`), `path` is escaped and relative to that, folders end
    with a slash, `size` is in bytes, or `unreadable`, or `= path` for a folder that has been listed under that path.
    Sources that look in no folder of the user's have no rows. Raises `ValueError` where such a folder isn't there.
    """
    roots = {}
    if probe_source in IN_FOLDERS:
        roots[directory(probe_path, probe_source)] = "probe_path"
    if source in IN_FOLDERS:
        roots[directory(path, source)] = "path"
    rows = 0

    def counted() -> Iterator[Row]:
        nonlocal rows
        for root, setting in roots.items():
            for row in _rows(setting, root):
                rows += 1
                yield row

    write_csv(file, COLUMNS, counted())
    return rows


def _rows(setting: str, root: Path) -> Iterator[Row]:
    for folder in visit(root):
        what = UNREADABLE if folder.unreadable else "" if folder.same_as is None else f"= {escape(folder.same_as)}"
        yield setting, escape(folder.path), what, ""
        for name in folder.files:
            yield setting, escape(f"{folder.path}{name}"), *_size_and_time(root / folder.path / name)


def _size_and_time(file: Path) -> tuple[str | int, str | int]:
    """Access is asked for as well: that it was granted or taken away changes neither size nor time."""
    try:
        facts = file.stat()
    except OSError:
        return UNREADABLE, ""
    return (facts.st_size, facts.st_mtime_ns) if os.access(file, os.R_OK) else (UNREADABLE, "")
