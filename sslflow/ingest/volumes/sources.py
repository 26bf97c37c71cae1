"""Where volumes come from: folders of files and of DICOM series, with or without a folder for each class, and the
shipped solids."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sslflow import paths
from sslflow.data.classes import class_name, shown
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN, Split, held_out
from sslflow.ingest.images.folders import visit
from sslflow.ingest.images.sources import directory
from sslflow.ingest.records import Rejected, escape
from sslflow.ingest.volumes.dicom import is_dicom, read_series
from sslflow.ingest.volumes.files import ENDINGS, OTHERS, ending, read_file, stem
from sslflow.ingest.volumes.volume import Volume
from sslflow.settings.params import closest

KINDS = ("samples:solids", "folder", "folders")
SOLIDS = "solids/volumes.parquet"


@dataclass(frozen=True)
class Record:
    """A volume of a source, not yet read."""

    name: str
    """The file or the folder of a series, below the source's."""
    group: str
    """The patient: what a split never divides."""
    read: Callable[[], Volume]
    split: Split = POOL
    label: int = NO_LABEL
    """Of its folder, −1 where there are no class folders."""
    tissues: Callable[[], Volume] | None = None
    """The class of each voxel, where that is known."""
    tissue_name: str = ""


@dataclass(frozen=True)
class Source:
    """Volumes from one place, in an order: those to test on first, so that of two equal ones the one to test on is
    kept."""

    records: tuple[Record, ...]
    classes: tuple[str, ...] = ()
    """Of class folders."""
    tissue_classes: tuple[str, ...] = ()
    """Of the values of label volumes, where the source itself names them."""
    rejected: tuple[Rejected, ...] = ()
    others: int = 0
    """Files that don't call themselves volumes."""
    notes: tuple[str, ...] = field(default=())


def open_source(
    name: str, path: str | os.PathLike[str], *, labels: str, seed: int, test_fraction: float, max_voxels: int
) -> Source:
    """The source called `name`; `path` is where `folder` and `folders` look. `labels` names the folder of label
    volumes, or what stands at the end of their names. Raises `ValueError` for a name or a place that isn't there."""
    if name == "samples:solids":
        return _solids()
    if name not in KINDS:
        raise ValueError(f"data.source: volumes have no source '{name}'{closest(name, KINDS)}")
    root = directory(path, name, "data.path")
    found = _walked(root, labels, max_voxels)
    if name == "folders":
        found = _by_folder(root, found)
    if not found.records and not found.rejected:
        known = ", ".join((*ENDINGS, "DICOM"))
        beside = f"; it holds {found.others} other files" if found.others else ""
        raise ValueError(f"{root}: there are no volumes here ({known}){beside}")
    if labels and not any(record.tissues for record in found.records):
        example = stem(found.records[0].name) if found.records else "NAME"
        place = f"{labels}/{example}.nii.gz" if Path(labels).is_dir() else f"{example}{labels}.nii.gz beside it"
        raise ValueError(
            f"data.labels is {labels}, and none of {len(found.records)} volumes has a label volume: expected, of the "
            f"first, {place}"
        )
    return _divided(found, seed, test_fraction) if found.classes or labels else found


def _walked(root: Path, labels: str, max_voxels: int) -> Source:
    """All volumes below a folder, without classes."""
    beside = Path(labels) if labels and Path(labels).is_dir() else None
    if labels and not beside and ("/" in labels or os.sep in labels):
        raise ValueError(
            f"data.labels: there is no folder {labels}; name one, or what label volumes' names end in, such as _labels"
        )
    suffix = "" if beside else labels
    records: list[Record] = []
    rejected: list[Rejected] = []
    tissues: dict[str, Path] = {}
    others = 0
    if beside:
        tissues = {stem(name): beside / name for name in _names(beside)}
    for folder in visit(root):
        place = root / folder.path
        if folder.unreadable:
            rejected.append(Rejected(folder.path.rstrip("/") or ".", f"folder not readable: {folder.unreadable}"))
        if beside and beside.resolve() in (place.resolve(), *place.resolve().parents):
            continue
        slices = []
        for name in folder.files:
            path = f"{folder.path}{name}"
            if ending(name) and suffix and stem(name).endswith(suffix):
                tissues[f"{folder.path}{stem(name).removesuffix(suffix)}"] = place / name
            elif ending(name):
                records.append(Record(path, _group(path), partial(read_file, place / name, max_voxels)))
            elif name.lower().endswith(OTHERS):
                reason = "a format that isn't read: write it as NIfTI (.nii.gz), DICOM or .npy"
                rejected.append(Rejected(path, reason))
            elif is_dicom(place / name):
                slices.append(place / name)
            else:
                others += 1
        if slices:
            path = folder.path.rstrip("/") or root.resolve().name
            records.append(Record(path, _group(path), partial(read_series, slices, max_voxels)))
    found = [
        record
        if (file := tissues.pop(stem(record.name), None)) is None
        else replace(record, tissues=partial(read_file, file, max_voxels), tissue_name=str(file))
        for record in records
    ]
    notes = []
    if tissues:
        names = shown(escape(str(file)) for file in tissues.values())
        notes.append(f"warning: {len(tissues)} label volumes belong to no volume: {names}")
    return Source(tuple(found), rejected=tuple(rejected), others=others, notes=tuple(notes))


def _names(root: Path) -> Iterator[str]:
    """Of the volumes in files below a folder."""
    for folder in visit(root):
        yield from (f"{folder.path}{name}" for name in folder.files if ending(name))


def _group(path: str) -> str:
    """The patient of a volume: the first folder below the source's, or the file itself."""
    first, inside, _ = path.partition("/")
    return first if inside else stem(path)


def _by_folder(root: Path, found: Source) -> Source:
    """The first folder of each is its class, the second, or the file, its patient."""
    loose: list[Record] = [record for record in found.records if "/" not in record.name]
    held = [record for record in found.records if "/" in record.name]
    if not held:
        raise ValueError(
            f"{root}: expected a folder for each class, found no volume in any; for volumes without labels set "
            "data.source to folder"
        )
    classes = tuple(sorted({class_name(record.name.partition("/")[0]) for record in held}))
    if len(classes) < 2:
        raise ValueError(
            f"{root}: expected a folder for each class, found {', '.join(map(escape, classes))} alone; for volumes "
            "without labels set data.source to folder"
        )
    records = []
    for record in held:
        folder, _, inside = record.name.partition("/")
        name = class_name(folder)
        records.append(replace(record, label=classes.index(name), group=f"{name}/{_group(inside)}"))
    aside = [Rejected(record.name, "not in a class folder") for record in loose]
    return replace(
        found,
        records=tuple(records),
        classes=tuple(map(escape, classes)),
        rejected=(*found.rejected, *aside),
    )


def _divided(found: Source, seed: int, test_fraction: float) -> Source:
    """Some of the patients to test on, of each class some; all others to train on."""
    groups = {record.group: record.label for record in found.records}
    names = sorted(groups)
    test = {names[place] for place in held_out(names, [groups[name] for name in names], test_fraction, seed)}
    ordered = sorted(found.records, key=lambda record: (record.group not in test, record.name))
    notes = list(found.notes)
    if not test:
        notes.append(
            f"warning: {len(groups)} patients (folders or files), of no class enough to test on one: no scores; a "
            "split never divides a patient"
        )
    records = tuple(replace(record, split=TEST if record.group in test else TRAIN) for record in ordered)
    return replace(found, records=records, notes=tuple(notes))


def _solids() -> Source:
    """Solids rendered to volumes: the columns item, split, volume and classes; metadata tell shape and names."""
    file = paths.SAMPLES / SOLIDS
    if not file.exists():
        raise ValueError(f"{file.resolve()}: there are no such samples here; run this in the project's folder")
    table = pq.read_table(file)
    metadata = table.schema.metadata
    shape, names = json.loads(metadata[b"shape"]), tuple(json.loads(metadata[b"classes"]))

    def volume(place: int, column: str) -> Volume:
        content: Any = table[column][place].as_py()
        return Volume(np.frombuffer(content, np.uint8).reshape(shape))

    columns = zip(table["item"].to_pylist(), table["split"].to_pylist(), strict=True)
    records = [
        Record(
            item, item, partial(volume, place, "volume"), split, tissues=partial(volume, place, "classes"),
            tissue_name=item,
        )
        for place, (item, split) in enumerate(columns)
    ]  # fmt: skip
    return Source(tuple(sorted(records, key=lambda one: (one.split != TEST, one.name))), tissue_classes=names)
