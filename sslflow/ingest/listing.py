"""What lies in the raw folders, told without opening a file: how DVC learns that the images are others than before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from sslflow.ingest.images.annotations import annotation_places
from sslflow.ingest.images.captions import captions_file
from sslflow.ingest.images.depths import depth_place
from sslflow.ingest.images.folders import visit
from sslflow.ingest.images.sources import directory
from sslflow.ingest.records import escape
from sslflow.runtime.files import sha256, write_csv

COLUMNS = ("setting", "path", "size", "mtime_ns")
UNREADABLE = "unreadable"
IN_FOLDERS = ("folder", "folders", "imagefolder", "idx")

Row = tuple[str, str, str | int, str | int]


def write_listing(
    file: Path,
    *,
    source: str,
    path: str = "data/raw",
    labels: str = "",
    annotations: str = "",
    annotations_test: str = "",
    captions: str = "",
    depth: str = "",
    probe_source: str = "same",
    probe_path: str = "data/raw",
) -> int:
    """Replace `file` by a table of the files and folders that the sources would look at; the number of its rows. Where
    nothing has changed, `file` is not touched.

    `setting` says where a row was found (`path`, `probe_path`, `annotations`, `depth` …), `path` is escaped and
    relative to that, folders end with a slash, `size` is in bytes, or `unreadable`, or `= path` for a folder that has
    been listed under that path. Sources that look in no folder of the user's have no rows. Raises `ValueError` where
    such a folder isn't there.
    """
    looked_at = {"probe_path": (probe_source, probe_path), "path": (source, path)}
    places = annotation_places(annotations, annotations_test)
    if maps := depth_place(depth):
        places["depth"] = maps
    if labels:
        places["labels"] = Path(labels)
    folders = {setting: ("folder", str(place)) for setting, place in places.items() if place.is_dir()}
    tables = {setting: place for setting, place in places.items() if place.is_file() or setting == "labels"}
    if file_of_captions := captions_file(captions):
        tables["captions"] = file_of_captions
    return _write(file, "data", looked_at | folders, {one: tables[one] for one in tables if one not in folders})


def write_domains_listing(
    file: Path,
    section: str = "domains",
    *,
    source: str = "samples",
    source_path: str = "data/raw/source",
    target: str = "samples",
    target_path: str = "data/raw/target",
) -> int:
    """The same for a pair of domains, named `section` in errors: `setting` is `source_path` or `target_path`."""
    return _write(file, section, {"source_path": (source, source_path), "target_path": (target, target_path)})


def write_named_listing(file: Path, names: Mapping[str, str]) -> int:
    """A row for each file that a setting names: `setting`, the file's whole name as `path`, and the hash of what it
    holds, `sha256`. Where nothing has changed, `file` is not touched. Raises `ValueError` where a file isn't there."""
    named = {setting: Path(name) for setting, name in names.items() if name}
    for setting, place in named.items():
        if not place.is_file():
            what = "such a file" if setting.endswith("split") else "a file of weights, or a block of starts"
            if setting.startswith("language."):
                what = "such a file, or a set that gensim brings along (docs/text.md)"
            raise ValueError(f"{setting}: there is no file {place}; name {what}, or '' to do without one")
    rows = [(setting, escape(str(place)), sha256(place)) for setting, place in named.items()]
    write_csv(file, ("setting", "path", "sha256"), rows, if_different=True)
    return len(named)


def write_clips_listing(file: Path, section: str = "clips", *, source: str = "samples", path: str = "data/raw") -> int:
    """The same for a set of videos, named `section` in errors: `setting` is `path`."""
    return _write(file, section, {"path": (source, path)})


def _write(
    file: Path, section: str, looked_at: Mapping[str, tuple[str, str]], tables: Mapping[str, Path] | None = None
) -> int:
    """`looked_at` maps a setting of the section to a source and the place where it looks, `tables` others to a file."""
    roots = {
        directory(place, source, f"{section}.{setting}"): setting
        for setting, (source, place) in looked_at.items()
        if source in IN_FOLDERS
    }
    rows = 0

    def counted() -> Iterator[Row]:
        nonlocal rows
        of_tables = ((setting, escape(str(one)), *_size_and_time(one)) for setting, one in (tables or {}).items())
        for row in chain(*(_rows(setting, root) for root, setting in roots.items()), of_tables):
            rows += 1
            yield row

    write_csv(file, COLUMNS, counted(), if_different=True)
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
