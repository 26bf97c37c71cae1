"""Which videos there are, and what is known of them before one is opened."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from sslflow import paths
from sslflow.data.classes import class_name
from sslflow.data.splits import NO_LABEL, TEST, TRAIN, Split
from sslflow.ingest.images import layout
from sslflow.ingest.images.folders import visit
from sslflow.ingest.images.layout import ClassFolder, Words
from sslflow.ingest.images.made_by_systems import passed
from sslflow.ingest.images.sources import directory
from sslflow.ingest.records import Passed, escape
from sslflow.settings.params import closest

KINDS = ("samples:<name>", "folder", "folders")
TABLE = "videos.parquet"
SETTING = "clips.path"

SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".mpg", ".mpeg", ".m2v", ".vob"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".ogm", ".mxf", ".dv", ".rm", ".rmvb"),
}
"""Endings that make a file a video to us; what it is, is then told by its content."""

_WORDS = Words(what="videos", place=SETTING, unlabelled="set clips.source to folder", splits=False)
NOWHERE = (float("nan"),) * 4


@dataclass(frozen=True)
class VideoFile:
    """A file that calls itself a video."""

    name: str
    """Its path below the source's folder."""
    file: Path
    label: int = NO_LABEL
    split: Split | None = None
    """Where a table says so; else it is drawn by lot, by content."""
    source: str = ""
    """What a split never divides, where a table says so; else it is the file's content."""
    box: tuple[float, ...] = NOWHERE
    """x0, y0, x1, y1 of the thing that sounds, as shares of the frame's width and height."""


@dataclass(frozen=True)
class Videos:
    """What lies in one place."""

    classes: tuple[str, ...]
    files: list[VideoFile]
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Name and reason, for what is known to be unusable already."""
    other_files: int = 0
    passed: list[Passed] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    """Lines for the log: how the folders were understood."""


def find_videos(source: str, path: str) -> Videos:
    """The videos of `source`: all below the folder `path` (`folder`), the same with the name of the first sub-folder as
    label (`folders`), or a sample that comes with a table. Raises `ValueError` for a name or a place that isn't there,
    for labels that can hardly be meant, and for a table that isn't as it should be."""
    kind, _, detail = source.partition(":")
    if kind == "samples" and detail:
        return _sample(detail)
    if source in ("folder", "folders"):
        return _below(directory(path, source, SETTING), labelled=source == "folders")
    raise ValueError(f"clips.source: there is no source '{source}'{closest(source, KINDS)}")


def _below(root: Path, *, labelled: bool) -> Videos:
    names, rejected, others, passed_over = [], [], 0, []
    for folder in visit(root):
        passed_over += [passed(root / folder.path / name, f"{folder.path}{name}") for name in folder.passed]
        here = folder.path.rstrip("/")
        if folder.unreadable:
            rejected.append((here or ".", f"folder not readable: {folder.unreadable}"))
        elif _is_video(here) and not folder.same_as:
            rejected.append((here, "a folder, not a file"))
        for name in folder.files:
            if not _is_video(name):
                others += 1
            elif labelled and not folder.path:
                rejected.append((name, "not in a folder that is a label"))
            else:
                names.append(f"{folder.path}{name}")
    if not labelled:
        files = [VideoFile(name, root / name) for name in names]
        return Videos((), files, rejected, others, passed_over)
    folders = _class_folders(names)
    if doubt := layout.doubt(root, {"": folders}, _WORDS):
        raise ValueError(doubt)
    classes = tuple(sorted({folder.name for folder in folders}))
    files = [VideoFile(name, root / name, classes.index(_label(name))) for name in names]
    notes = layout.notes(root, folders, _WORDS) if folders else []
    return Videos(classes, files, rejected, others, passed_over, tuple(notes))


def _label(name: str) -> str:
    return escape(class_name(name.partition("/")[0]))


def _class_folders(names: list[str]) -> list[ClassFolder]:
    inside: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name in names:
        first, _, rest = name.partition("/")
        inside[first][rest.removesuffix(rest.rpartition("/")[2])] += 1
    return [ClassFolder(_label(first), f"{first}/", counts) for first, counts in inside.items()]


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


_COLUMNS = {
    "path": pa.types.is_string,
    "split": pa.types.is_string,
    "label": pa.types.is_string,
    "source": pa.types.is_string,
    **dict.fromkeys(("x0", "y0", "x1", "y1"), pa.types.is_floating),
}


def _sample(name: str) -> Videos:
    known = sorted(file.parent.name for file in paths.SAMPLES.glob(f"*/{TABLE}"))
    if name not in known:
        raise ValueError(f"clips.source: there is no sample of videos '{name}'{closest(name, known)}")
    root = paths.SAMPLES / name
    schema = pq.read_schema(root / TABLE)
    for column, fits in _COLUMNS.items():
        if column not in schema.names or not (fits(schema.field(column).type) or column == "path"):
            raise ValueError(f"{root / TABLE}: expected a column {column} as docs/video.md says, found {schema.names}")
    rows = pq.read_table(root / TABLE, columns=list(_COLUMNS)).to_pylist()
    classes = tuple(sorted({class_name(row["label"]) for row in rows}))
    return Videos(classes, list(_rows(root, rows, classes)))


def _rows(root: Path, rows: list[dict], classes: tuple[str, ...]) -> Iterator[VideoFile]:
    """Sorted by name. Raises `ValueError` for what can't be, among it a source in both splits."""
    splits: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row["path"]):
        name, split, source = row["path"], row["split"], row["source"]
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{root / TABLE}: {name}: a path that leads out of the sample's folder")
        if split not in (TRAIN, TEST):
            raise ValueError(f"{root / TABLE}: {name}: expected the split {TRAIN} or {TEST}, found {split!r}")
        if splits.setdefault(source, split) != split:
            raise ValueError(f"{root / TABLE}: the source {source!r} is in both splits")
        box = tuple(float(row[edge]) for edge in ("x0", "y0", "x1", "y1"))
        label = classes.index(class_name(row["label"]))
        yield VideoFile(name, root / name, label, cast(Split, split), source, box)
