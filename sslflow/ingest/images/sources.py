"""Where images come from: the names that `data.source` may have, each a function from a place to a `Source`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from sslflow import paths
from sslflow.data.classes import class_name
from sslflow.data.splits import POOL, TEST, TRAIN
from sslflow.ingest.images import folders, idx
from sslflow.ingest.images.layout import Words
from sslflow.ingest.records import Annotation, DepthMaps, Item, Masks, Record, Source, Thing
from sslflow.settings.params import closest

EmojiLabel = Literal["category", "subcategory"]

KINDS = ("samples:<name>", "folder", "imagefolder", "idx", "torchvision:<name>")
NONE = "none"
"""Where there are to be no images: of a project that is about clips alone."""


def open_source(
    name: str,
    path: str | os.PathLike[str],
    *,
    seed: int,
    test_fraction: float,
    label: EmojiLabel,
    words: Words | None = None,
    without: tuple[str, ...] = (),
) -> Source:
    """The source called `name`, such as `samples:fashion` or `folder`; `path` is where the last three of the kinds
    look.

    `seed` and `test_fraction` are for sources without a split of their own, `label` for `samples:emoji`, `words` for
    what is said of class folders; `without`: of a folder without labels, folders in it that hold none
    of its images. Raises `ValueError` for a name or a place that isn't there.
    """
    kind, _, detail = name.partition(":")
    if kind == "samples" and detail:
        return _sample(detail, label)
    if kind == "torchvision" and detail:
        from sslflow.ingest.images.downloads import (
            torchvision_source,  # brings torch, which the other sources do without
        )

        return torchvision_source(detail)
    if name == "folder":
        return folders.folder(directory(path, name), without)
    if name == "imagefolder":
        return folders.imagefolder(directory(path, name), seed=seed, test_fraction=test_fraction, words=words)
    if name == "idx":
        return idx.idx(directory(path, name), seed=seed, test_fraction=test_fraction)
    kinds = [known.partition(":")[0] for known in KINDS]
    raise ValueError(f"there is no source '{name}'{closest(name, KINDS) if kind in kinds else closest(kind, kinds)}")


def combine(pool: Source, probe: Source) -> Source:
    """Images to pretrain on from one source, without its test split, and labelled ones to probe with from another."""
    if not probe.classes:
        raise ValueError("data.probe_source has no labels: choose a labelled source, or `same`")

    def records() -> Iterator[Item]:
        for item in probe.records():
            if not (isinstance(item, Record) and item.split == POOL):
                yield item
        for item in pool.records():
            if not isinstance(item, Record):
                yield item
            elif item.split != TEST:
                yield Record(item.name, POOL, item.picture, group=item.group)

    lost = ("warning: masks and boxes of data.source are not used, since data.probe_source is not same",)
    notes = (*probe.notes, *pool.notes, *lost * bool(pool.masks or pool.thing_classes))
    return Source(probe.classes, records, notes, probe.doubt)


def directory(path: str | os.PathLike[str], name: str, setting: str = "data.path or data.probe_path") -> Path:
    """The folder in which the source `name` looks, as `setting` says. Raises `ValueError` where it isn't there."""
    folder = Path(path)
    if not folder.exists():
        raise ValueError(f"{folder}: there is no such folder (source {name} looks there; set {setting})")
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder, found a file")
    return folder


def _sample(detail: str, label: EmojiLabel) -> Source:
    known = sorted(f"{file.parent.name}/{file.stem}" for file in paths.SAMPLES.glob("*/*.parquet"))
    known += sorted({entry.parent.name for entry in paths.SAMPLES.glob("*/SOURCE.md")})
    if not known:
        raise ValueError(f"{paths.SAMPLES.resolve()}: there are no samples here; run this in the project's folder")
    if detail not in known:
        raise ValueError(f"there is no sample '{detail}'{closest(detail, known)}")
    place = paths.SAMPLES / detail
    if list(place.glob("*-ubyte*")):
        return idx.idx(place, seed=0, test_fraction=0.0)
    files = [place.with_suffix(".parquet")] if "/" in detail else sorted(place.glob("*.parquet"))
    if "volume" in pq.read_schema(files[0]).names:
        raise ValueError(f"data.source: samples:{detail} are volumes, and data.kind is images: recipes/volumes.yaml")
    return _scenes(files[0]) if "mask" in pq.read_schema(files[0]).names else _pictures(files, label)


def _pictures(files: list[Path], label: EmojiLabel) -> Source:
    """Encoded images in Parquet files: the columns image, split, one that names the item shown (code_point or item),
    and either label or those that `label` may name; perhaps depth, PNGs of 16 bits, with the metres from one of their
    values to the next in the file's metadata, `depth_scale`."""
    columns = pq.read_schema(files[0]).names
    item = "item" if "item" in columns else "code_point"
    kind = "label" if "label" in columns else label
    metadata = pq.read_schema(files[0]).metadata or {}
    depth = DepthMaps(float(metadata[b"depth_scale"])) if "depth" in columns else None
    classes = tuple(
        sorted({class_name(value) for file in files for value in pq.read_table(file, columns=[kind])[kind].to_pylist()})
    )
    numbers = {name: number for number, name in enumerate(classes)}

    def records() -> Iterator[Record]:
        for split in (TEST, TRAIN):
            for file in files:
                for row in pq.read_table(file, filters=[("split", "==", split)]).to_pylist():
                    shown = str(row[item])
                    name, number = f"{file.stem}/{shown}", numbers[class_name(row[kind])]
                    yield Record(name, split, row["image"], number, shown, depth=row.get("depth"))

    return Source(classes, records, depth=depth)


def _scenes(file: Path) -> Source:
    """Encoded images in a Parquet file: the columns image, split, item, and, but in the pool, mask (a PNG of numbers of
    classes), boxes (left, top, right, bottom of one thing after the other) and labels; `classes` in the metadata of the
    file are those in the masks, the first of which is the background, the others the things'."""
    pixel_classes = tuple(json.loads((pq.read_schema(file).metadata or {})[b"classes"]))
    numbers = {name: number for number, name in enumerate(pixel_classes[1:])}

    def records() -> Iterator[Record]:
        for split in (TEST, TRAIN, POOL):
            for row in pq.read_table(file, filters=[("split", "==", split)]).to_pylist():
                truth = None
                if row["mask"] is not None:
                    boxes = zip(*(row["boxes"][edge::4] for edge in range(4)), strict=True)
                    things = [
                        Thing(numbers[name], (left, top, right, bottom))
                        for name, (left, top, right, bottom) in zip(row["labels"], boxes, strict=True)
                    ]
                    truth = Annotation(row["mask"], tuple(things))
                yield Record(f"{file.stem}/{row['item']}", split, row["image"], group=row["item"], truth=truth)

    return Source((), records, masks=Masks(pixel_classes), thing_classes=pixel_classes[1:])
