"""Where text comes from: folders of files, and the sample that ships with the project."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from sslflow import paths
from sslflow.data.classes import class_name
from sslflow.ingest.images.folders import visit
from sslflow.ingest.records import escape
from sslflow.ingest.text.reading import Passages, decoded, passages_of, read_text
from sslflow.settings.params import closest

BibleLabel = Literal["division", "book", "testament"]
SOURCES = ("folder", "folders", "samples:bible")
SUFFIXES = (".txt", ".jsonl")
NEW_TESTAMENT = ("gospels and acts", "letters", "revelation")


@dataclass
class Document:
    """Passages that follow one another. A split never divides it."""

    name: str
    passages: list[str]
    labels: list[str]
    """Of each passage its class; empty where it has none."""
    names: list[str]
    """Of each passage, where it stands."""
    like: str = ""
    """Documents of which as large a share is to be tested on: a class, or a book."""


@dataclass
class Found:
    """What there is at a source."""

    documents: list[Document] = field(default_factory=list)
    named: dict[str, Document] = field(default_factory=dict)
    """Those that lines name, by these names."""
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Files, or lines of them, that can't be used, with the reason."""
    other_files: int = 0
    over_files: set[str] = field(default_factory=set)
    """Documents whose lines stand in several files."""


def open_source(source: str, path: str, passages: Passages, label: BibleLabel) -> Found:
    """All documents of a source, in order. Raises `ValueError` for one that there is not, and where nothing of it can
    be read."""
    if source == "samples:bible":
        return _bible(label)
    if source not in SOURCES:
        raise ValueError(f"data.source is {source}, and text comes from {', '.join(SOURCES)}{closest(source, SOURCES)}")
    root = Path(path)
    if not root.is_dir():
        what = "expected a folder, found a file: name the folder it lies in" if root.exists() else "no such folder"
        raise ValueError(f"{path}: {what} (data.path, where source {source} looks)")
    return _folder(root, passages, labelled=source == "folders")


def _bible(label: BibleLabel) -> Found:
    file = paths.SAMPLES / "bible" / "verses.parquet"
    if not file.exists():
        raise ValueError(f"{file.resolve()}: there are no samples here; run this in the project's folder")
    found = Found()
    for (book, chapter), rows in groupby(
        pq.read_table(file).to_pylist(), key=lambda row: (row["book"], row["chapter"])
    ):
        verses = list(rows)
        division = verses[0]["division"]
        name = {"division": division, "book": book, "testament": "new" if division in NEW_TESTAMENT else "old"}[label]
        places = [f"{book} {chapter}:{verse['verse']}" for verse in verses]
        texts = [verse["text"] for verse in verses]
        found.documents.append(Document(f"{book} {chapter}", texts, [name] * len(verses), places, like=book))
    return found


def _folder(root: Path, passages: Passages, *, labelled: bool) -> Found:
    """Every `.txt` and `.jsonl` file below the folder, in the order of `visit`; hidden ones are passed over."""
    found = Found()
    for folder in visit(root):
        if folder.unreadable:
            place = escape(folder.path.rstrip("/")) or "."
            found.rejected.append((place, f"folder not readable: {folder.unreadable}"))
        for name in folder.files:
            inside = Path(folder.path, name)
            if inside.suffix.lower() not in SUFFIXES:
                found.other_files += 1
            else:
                _take_file(root, inside, passages, found, labelled=labelled)
    return found


def _take_file(root: Path, inside: Path, passages: Passages, found: Found, *, labelled: bool) -> None:
    name, lines = escape(inside.as_posix()), inside.suffix.lower() == ".jsonl"
    if labelled and len(inside.parts) < 2:
        found.rejected.append((name, "in no class folder: source folders takes the first folder's name as the class"))
        return
    label = class_name(escape(inside.parts[0])) if labelled else ""
    try:
        content = (root / inside).read_bytes()
        text = decoded(content) if lines else read_text(content)  # of lines each is looked at by itself
    except (OSError, ValueError) as error:
        found.rejected.append((name, f"unreadable: {error.strerror}" if isinstance(error, OSError) else str(error)))
        return
    if lines:
        _take_lines(name, text, label, found)
    else:
        parts = passages_of(text, passages)
        places = [f"{name}#{number}" for number in range(1, len(parts) + 1)]
        found.documents.append(Document(name, parts, [label] * len(parts), places, like=label))


def _take_lines(name: str, text: str, folder_label: str, found: Found) -> None:
    """Each line an object with `text`, and, as it may be, `label` and `document`: lines of one document follow one
    another, in whatever files they stand; a line without one is a document of its own."""
    for number, line in enumerate(StringIO(text, newline=None), start=1):  # the separators of Unicode end none
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            passage, label, document = _fields(line)
        except ValueError as error:
            found.rejected.append((place, str(error)))
            continue
        label = class_name(escape(label)) or folder_label
        own = found.named.get(document)
        if own is None:
            own = Document(f"{name}#{escape(document)}" if document else place, [], [], [], like=label)
            found.documents.append(own)
            if document:
                found.named[document] = own
        elif not own.name.startswith(f"{name}#"):
            found.over_files.add(document)
        own.passages.append(passage)
        own.labels.append(label)
        own.names.append(place)


def _fields(line: str) -> tuple[str, str, str]:
    """Text, label and document of a line. Raises `ValueError` with the reason for one that can't be used."""
    try:
        told: Any = json.loads(line)
    except ValueError:
        raise ValueError("not JSON: expected an object a line") from None
    if not isinstance(told, dict) or "text" not in told:
        raise ValueError("no text: expected an object with the key text")
    if not isinstance(told["text"], str):
        raise ValueError("text is no string")
    passage = " ".join(read_text(told["text"].encode("utf-8", "replace")).split())
    rest: Iterator[Any] = (told.get(key) for key in ("label", "document"))
    label, document = ("" if one is None else str(one) for one in rest)
    return passage, label, document
