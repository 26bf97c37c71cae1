"""Depth maps for images of a folder, from PNG files beside them. Imports no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from sslflow.data.splits import POOL, TEST, TRAIN, Split
from sslflow.ingest.images import folders
from sslflow.ingest.images.annotations import divided, is_below
from sslflow.ingest.images.matching import MISSING, Names, meant
from sslflow.ingest.records import DepthMaps, Item, Record, Source, escape

KIND = "png"
SOURCES = ("folder", "imagefolder")


def depth_place(depth: str) -> Path | None:
    """The folder that `data.depth` names; None where it is empty. Raises `ValueError` where there is none."""
    if not depth:
        return None
    kind, _, place = depth.partition(":")
    if kind != KIND or not place:
        raise ValueError(f"data.depth: expected png:FOLDER, a folder of grey PNGs with 16 bits, found {depth}")
    if not Path(place).is_dir():
        raise ValueError(f"data.depth: there is no folder {place}")
    return Path(place)


def check_depth(depth: str, *, source: str, path: str, probe_source: str) -> Path | None:
    """The folder of the depth maps beside the images of `path`, by settings of `data`; None where there are to be none.
    Raises `ValueError` where settings don't go together, or name a folder that isn't there."""
    place = depth_place(depth)
    if place is None:
        return None
    if source not in SOURCES:
        raise ValueError(f"data.depth is for data.source folder or imagefolder, found {source}: leave it ''")
    if probe_source != "same":
        raise ValueError("data.depth is of the images in data.path: set data.probe_source to same")
    if source == "imagefolder" and is_below(place, Path(path)):
        raise ValueError(f"data.depth: {place} lies in {path}, whose folders are classes: move it out of there")
    return place


def with_depth(source: Source, place: Path, scale: float, *, divide: bool, seed: int, test_fraction: float) -> Source:
    """The images of `source` with the depth maps below `place` that are called as they are but for the ending, in the
    same folders.

    Where nothing has divided them yet (`divide`), those with a map are to train on and to test on, by folders `train`
    and `test`, or else a hash: `test_fraction` of them; all others, and with them those to train on, are the pool.

    Raises `ValueError` where no map belongs to an image.
    """
    images = list(dict.fromkeys(one.name for one in source.records() if isinstance(one, Record)))
    maps, flaws, others = _maps(place, Names(images))
    if not maps:
        found = f"{len(flaws):,} PNG files, none of them called as an image" if flaws else "no PNG file"
        example = f" ({escape(flaws[0][0])})" if flaws else ""
        raise ValueError(
            f"data.depth: {place}: expected depth maps, a PNG for each image with the same name but for its ending, "
            f"found {found}{example}, and {others:,} other files"
        )
    splits = divided(maps, seed, test_fraction) if divide else None
    pooled = len(maps) < len(images)
    notes = [f"{place}: depth maps of {len(maps):,} of {len(images):,} images"]
    if splits is not None:
        notes.append(
            f"{Counter(splits.values())[TEST]:,} of these are to test on"
            + (f"; the other {len(images) - len(maps):,} are learnt from without" if pooled else "")
        )
    if others:
        notes.append(f"warning: {place}: {others:,} files there are no PNG, and no depth maps")
    return replace(
        source,
        records=partial(_records, source, {name: place / file for name, file in maps.items()}, splits, pooled),
        notes=(*source.notes, *notes),
        depth=DepthMaps(scale, None if splits is None else POOL if pooled else TRAIN, tuple(flaws)),
    )


def _records(
    source: Source, maps: Mapping[str, Path], splits: Mapping[str, Split] | None, pooled: bool
) -> Iterator[Item]:
    items = [replace(one, depth=maps.get(one.name)) if isinstance(one, Record) else one for one in source.records()]
    if splits is None:
        yield from items
        return
    for split in (TEST, TRAIN):
        for item in items:
            if isinstance(item, Record) and splits.get(item.name) == split:
                yield replace(item, split=split)
    for item in items:
        if not isinstance(item, Record) or (pooled and splits.get(item.name) != TEST):
            yield item


def _maps(place: Path, names: Names) -> tuple[dict[str, str], list[tuple[str, str]], int]:
    """The map of each image, by the image's name; maps of no image, with the reason; and how many other files there
    are."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    maps: dict[str, str] = {}
    flaws: list[tuple[str, str]] = []
    others = 0
    for folder in folders.visit(place):
        for file in folder.files:
            path = f"{folder.path}{file}"
            if not file.lower().endswith(".png"):
                others += 1
                continue
            try:
                found[names.find_stem(path[:-4])].append(path)
            except LookupError as reason:
                flaws.append((path, f"depth map without an image: {reason}"))
    for name, own in found.items():
        right = meant((path[:-4] for path in own), name, stem=True)
        for path in own:
            if path[:-4] not in right:
                flaws.append((path, f"depth map without an image: {MISSING}"))
            elif name in maps:
                flaws.append((path, f"second depth map of an image: {maps[name]} is used"))
            else:
                maps[name] = path
    return maps, flaws, others
