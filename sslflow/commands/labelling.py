"""Whether the folders that images lie in are their classes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sslflow.ingest.images import layout
from sslflow.ingest.images.folders import imagefolder
from sslflow.ingest.images.layout import ClassFolder, Words
from sslflow.ingest.records import escape

_DATES = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}|\d{3}[A-Z_]{5}|DCIM|\d{1,2}[-_. ](19|20)\d\d", re.IGNORECASE)
_UNLABELLED = re.compile(r"un(-|_)?(labell?ed|sup(ervised)?)", re.IGNORECASE)
Splits = tuple[list[str], list[str]] | None
"""Folders to train on and to test on, where their names say so."""


@dataclass(frozen=True)
class Labels:
    """How `data` is to read the folder."""

    source: str
    """`folder` or `imagefolder`."""
    path: Path
    why: str
    classes: int = 0
    train: int = 0
    """Images that pretraining sees."""
    labelled: int = 0
    """Labelled images to train probes on."""
    probe: Path | None = None
    """A labelled set beside images without labels."""


def labels(root: Path, found: Mapping[str, int], whole: bool) -> Labels:
    """Whether folders are classes, as `imagefolder` understands them, and why not. `found`: folder below `root` (`""`,
    `cats/`, `cats/old/`) → images directly in it; `whole`: whether all were counted."""
    images = sum(found.values())
    path, inside = _narrowed(root, found)
    loose = inside.get("", 0)
    tops: Counter[str] = Counter()
    for folder, number in inside.items():
        if folder:
            tops[folder.partition("/")[0]] += number

    def unlabelled(why: str) -> Labels:
        return Labels("folder", root, why, train=images)

    if not tops:
        return unlabelled("no folders in it: no labels")
    if 3 * loose > images:
        return unlabelled(f"{loose:,} of {images:,} images lie beside its folders: no classes")
    if len(tops) == 1:
        return unlabelled(f"one folder with images only, {_first(tops)}/: no classes to tell apart")
    if all(_DATES.fullmatch(name) for name in tops):
        return unlabelled(f"its folders are named by dates ({_first(tops)} …): no classes")
    splits = _splits([one.name for one in path.iterdir() if one.is_dir()])
    try:
        doubt, classes = _judged(path, inside, splits, whole)
    except (ValueError, OSError) as error:
        doubt, classes = str(error), 0
    if doubt:
        return unlabelled(doubt.removeprefix(f"{path}: ").partition(";")[0])
    by_class = _by_class(inside, splits)
    alone = sum(number == 1 for number in by_class.values())
    if whole and 2 * alone > len(by_class):
        return unlabelled(f"{alone:,} of {len(by_class):,} folders hold a single image: no classes")
    train = sum(tops[name] for name in splits[0]) if splits else 0
    train = train or round(0.8 * sum(tops.values()))
    where = f"{classes or len(by_class):,} folders of classes"
    if splits:
        where += f", trained on {_names(splits[0])}, tested on {_names(splits[1])}"
        rest = [name for name in tops if name not in (*splits[0], *splits[1]) and _UNLABELLED.fullmatch(name)]
        if rest:
            why = f"images without labels in {rest[0]}/, beside {where}"
            return Labels("folder", path / rest[0], why, classes, tops[rest[0]], train, path)
    return Labels("imagefolder", path, where, classes or len(by_class), train, train)


def _first(names: Mapping[str, int]) -> str:
    """The first name, in the order of names."""
    return escape(min(names))


def _names(names: list[str]) -> str:
    return ", ".join(f"{escape(name)}/" for name in names)


def _narrowed(root: Path, images: Mapping[str, int]) -> tuple[Path, dict[str, int]]:
    """Where class folders may lie: further down, as long as all images lie in one folder."""
    path, inside = root, dict(images)
    while "" not in inside and len(names := {folder.partition("/")[0] for folder in inside}) == 1:
        (name,) = names
        path, inside = path / name, {folder.removeprefix(f"{name}/"): number for folder, number in inside.items()}
    several = "" not in inside and len(inside) > 1
    return (path, inside) if several else (root, dict(images))


def _judged(path: Path, inside: Mapping[str, int], splits: Splits, whole: bool) -> tuple[str, int]:
    """Why the folders can hardly be classes, or `""`, and how many there are; of a folder that was not counted to its
    end, by what was seen, and by the names of its folders."""
    if whole:
        source = imagefolder(path, seed=0, test_fraction=0.2)
        return source.doubt, len(source.classes)
    if splits:
        classes = len({one.name for name in splits[0] for one in (path / name).iterdir() if one.is_dir()})
        return "" if classes > 1 else f"no folders of classes in {_names(splits[0])}", classes
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for folder, number in inside.items():
        top, _, rest = folder.partition("/")
        if top:
            found[top][rest] = number
    return layout.doubt(path, {"": [ClassFolder(name, f"{name}/", own) for name, own in found.items()]}, Words()), 0


def _splits(folders: Collection[str]) -> Splits:
    """Folders to train on and to test on, as `imagefolder` has them."""
    train, test, validation = (
        [name for name in sorted(folders) if name.strip().lower() in names]
        for names in (layout.TRAIN_NAMES, layout.TEST_NAMES, layout.VALIDATION_NAMES)
    )
    if not train or not (test or validation):
        return None
    return (train + validation, test) if test else (train, validation)


def _by_class(inside: Mapping[str, int], splits: Splits) -> Counter[str]:
    """Images of each class."""
    found: Counter[str] = Counter()
    for folder, number in inside.items():
        top, _, rest = folder.partition("/")
        if not splits and top:
            found[top] += number
        elif splits and top in (*splits[0], *splits[1]) and rest:
            found[rest.partition("/")[0]] += number
    return found
