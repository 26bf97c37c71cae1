"""Labels from a table of one's own, for images that lie in any folders: `path,label`, a row for each labelled image."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from sslflow.data.classes import class_name
from sslflow.data.splits import TEST, TRAIN, Split, held_out
from sslflow.ingest.records import Item, Record, Source, escape

COLUMNS = ("path", "label")
NOTHING = ("", "nan", "none", "null")
"""What stands for no label, in any case."""


def read_labels(file: Path) -> dict[str, str]:
    """Label by path, both as they stand in the table, rows without a label left out. Raises `ValueError` for a file
    that isn't such a table, or says two things of one image."""
    if not file.is_file():
        raise ValueError(f"data.labels: there is no file {file}; name a table with the columns path and label, or ''")
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"data.labels: {file} is not a comma-separated table in UTF-8 ({error})") from None
    if not rows or not {*COLUMNS} <= {*rows[0]}:
        found = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise ValueError(f"data.labels: {file} needs the columns path and label; found: {found}")
    labels: dict[str, str] = {}
    for row in rows:
        path, label = (row[column] or "" for column in COLUMNS)
        label = class_name(label.strip())
        if label.lower() in NOTHING:
            continue
        if labels.setdefault(path, label) != label:
            raise ValueError(f"data.labels: {file} calls {path} both {labels[path]} and {label}; keep one of the rows")
    if not labels:
        raise ValueError(f"data.labels: {file} has no label in any of its {len(rows):,} rows; '' does without labels")
    return labels


def with_labels(source: Source, labels: Mapping[str, str], file: Path, seed: int, test_fraction: float) -> Source:
    """The images of a source without labels: those that the table names, to train on and to test on, and as a pool all
    others and, where there are others, those to train on as well. `test_fraction` of each class are tested on, as in
    class folders. Raises `ValueError` where the table names images that the source doesn't have, or the source has
    labels of its own."""
    if source.classes:
        raise ValueError(
            "data.labels is for images without labels of their own: set data.source to folder, or leave it ''"
        )
    there = {item.name: escape(item.name) for item in source.records() if isinstance(item, Record)}
    by_path = {**{shown: name for name, shown in there.items()}, **{name: name for name in there}}
    unknown = [path for path in labels if path not in by_path]
    if unknown:
        raise ValueError(
            f"data.labels: {len(unknown):,} of the {len(labels):,} images that {file} names are not below data.path, "
            f"such as {unknown[0]}; paths are relative to data.path, as `sslflow select` writes them"
        )
    classes = tuple(sorted(set(labels.values())))
    numbers = {name: number for number, name in enumerate(classes)}
    known = {by_path[path]: numbers[label] for path, label in labels.items()}
    names = sorted(known)
    tested = {names[row] for row in held_out(names, [known[name] for name in names], test_fraction, seed)}

    parts: tuple[tuple[Split, set[str]], ...] = (TEST, tested), (TRAIN, known.keys() - tested)

    def records() -> Iterator[Item]:
        items = list(source.records())
        for split, chosen in parts:
            for item in items:
                if isinstance(item, Record) and item.name in chosen:
                    yield Record(item.name, split, item.picture, known[item.name], item.group)
        for item in items:
            if not isinstance(item, Record) or (item.name not in tested and len(known) < len(there)):
                yield item

    note = f"{file}: labels of {len(known):,} of {len(there):,} images, {len(tested):,} of them to test on"
    return Source(classes, records, (*source.notes, note))
