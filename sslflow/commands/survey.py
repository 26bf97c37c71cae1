"""What lies in a folder of a user's, told from a bounded look: how many images and videos, how large, labelled how."""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sslflow.ingest.images import layout
from sslflow.ingest.images.decode import MAX_PIXELS
from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.folders import imagefolder
from sslflow.ingest.images.kinds import by_ending, is_picture
from sslflow.ingest.images.layout import ClassFolder, Words
from sslflow.ingest.images.made_by_systems import made_by_a_system
from sslflow.ingest.images.opened import open_picture
from sslflow.ingest.images.raster import Used
from sslflow.ingest.records import escape
from sslflow.ingest.videos.sources import SUFFIXES

FILES, COUNTING = 200_000, 15.0
"""No more files are counted than so many, and for no longer than so many seconds."""
LOOKED, LOOKING = 200, 20.0
"""So many images are opened, or as many as so many seconds allow."""
NARROW = 1 / 8
"""Less of its range in an image of more than 8 bits loses most shades in 8 bits, as `prepare` says."""
EXPOSURES = 16
"""Images whose ranges are so many times narrower than all of them together have exposures of their own."""
_DRAFT = 96
_DATES = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}|\d{3}[A-Z_]{5}|DCIM|\d{1,2}[-_. ](19|20)\d\d", re.IGNORECASE)
_UNLABELLED = re.compile(r"un(-|_)?(labell?ed|sup(ervised)?)", re.IGNORECASE)


@dataclass
class Counted:
    """Files below a folder, those that systems make left out."""

    images: Counter[str] = field(default_factory=Counter)
    """Folder (`""`, `cats/`, `cats/old/`) → images directly in it."""
    videos: int = 0
    folders_of_videos: set[str] = field(default_factory=set)
    """First folders below the root that hold videos; `""`: the root itself."""
    others: int = 0
    unreadable: list[str] = field(default_factory=list)
    """Folders that can't be read, with the reason."""
    whole: bool = True
    """Whether the count came to its end."""
    chosen: list[str] = field(default_factory=list)
    """Images drawn by chance."""


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


@dataclass(frozen=True)
class Seen:
    """What images hold that were opened."""

    shorter: np.ndarray
    """Their shorter sides, pixels."""
    grey: int
    deep: list[Used]
    """Of those with more than 8 bits, the ranges that they use."""
    refused: list[str]
    """Those that can't be used, with the reason."""

    @property
    def count(self) -> int:
        """Images that could be read."""
        return len(self.shorter)

    @property
    def ends(self) -> str | list[int]:
        """What `sixteen_bit` should be."""
        widths = [used.high - used.low for used in self.deep]
        if not any(
            used.white is None or width < NARROW * used.white for used, width in zip(self.deep, widths, strict=True)
        ):
            return "full"
        low, high = self.range
        if high - low > EXPOSURES * float(np.median(widths)) or high <= low:
            return "stretch"
        return [low, high]

    @property
    def range(self) -> tuple[int, int]:
        """From the lowest to the highest value that they use."""
        low, high = min(used.low for used in self.deep), max(used.high for used in self.deep)
        return int(np.floor(low)), int(np.ceil(high))


@dataclass(frozen=True)
class Survey:
    """A folder."""

    root: Path
    counted: Counted
    labels: Labels
    seen: Seen

    @property
    def images(self) -> int:
        """Counted."""
        return sum(self.counted.images.values())


def survey(root: Path) -> Survey:
    """Look at a folder: `COUNTING` + `LOOKING` seconds at most, but for a disk that answers no question. Raises
    `ValueError` where there is no folder, or it can't be read."""
    if not root.exists():
        raise ValueError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder of images or videos, found a file")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise ValueError(f"{root}: the folder can't be read ({error.strerror}); allow it, as by chmod u+rx") from None
    counted = count(root)
    return Survey(root, counted, labels(root, counted), look(root, counted.chosen))


def count(root: Path, files: int = FILES, seconds: float = COUNTING, looked: int = LOOKED) -> Counted:
    """Count the files below `root`, folders in a random order, up to `files` and for `seconds`, and draw images."""
    found, numbers, images, seen = Counted(), random.Random(0), 0, 0
    until, waiting, known = time.monotonic() + seconds, [""], set()
    while waiting:
        place = numbers.randrange(len(waiting))
        waiting[place], waiting[-1] = waiting[-1], waiting[place]
        path = waiting.pop()
        for name, is_folder in _entries(root, path, known, found):
            if is_folder:
                waiting.append(f"{path}{name}/")
                continue
            seen += 1
            if seen > files or time.monotonic() > until:
                found.whole = False
                return found
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                found.videos += 1
                found.folders_of_videos.add(path.partition("/")[0])
            elif by_ending(name) or is_picture(root / path / name):
                found.images[path] += 1
                images += 1
                if len(found.chosen) < looked:
                    found.chosen.append(f"{path}{name}")
                elif (other := numbers.randrange(images)) < looked:
                    found.chosen[other] = f"{path}{name}"
            else:
                found.others += 1
    return found


def _entries(root: Path, path: str, known: set[tuple[int, int]], found: Counted) -> Iterator[tuple[str, bool]]:
    """Names in a folder as the disk gives them, and whether they are folders; each real folder once."""
    parent = (root / path).name
    try:
        facts = (root / path).stat()
        if (facts.st_dev, facts.st_ino) in known:
            return
        known.add((facts.st_dev, facts.st_ino))
        with os.scandir(root / path) as entries:
            for entry in entries:
                try:
                    is_folder = entry.is_dir()
                except OSError:
                    is_folder = False
                if not made_by_a_system(entry.name, parent, is_folder=is_folder):
                    yield entry.name, is_folder
    except OSError as error:
        found.unreadable.append(f"{escape(path) or '.'} ({error.strerror})")


def labels(root: Path, counted: Counted) -> Labels:
    """Whether folders are classes, as `imagefolder` understands them, and why not."""
    images = sum(counted.images.values())
    path, inside = _narrowed(root, counted.images)
    loose = inside.get("", 0)
    tops: Counter[str] = Counter()
    for folder, number in inside.items():
        if folder:
            tops[folder.partition("/")[0]] += number

    def unlabelled(why: str) -> Labels:
        return Labels("folder", root, why, train=images)

    if not tops:
        return unlabelled("no folders in it: no labels")
    if len(tops) == 1:
        return unlabelled(f"one folder with images only, {shown_one(tops)}: no classes to tell apart")
    if 3 * loose > images:
        return unlabelled(f"{loose:,} of {images:,} images lie beside its folders: no classes")
    if all(_DATES.fullmatch(name) for name in tops):
        return unlabelled(f"its folders are named by dates ({shown_one(tops)} …): no classes")
    try:
        doubt, classes = _judged(path, inside, counted.whole)
    except ValueError as error:
        doubt, classes = str(error), 0
    if doubt:
        return unlabelled(doubt.removeprefix(f"{path}: ").partition(";")[0])
    splits = _splits(tops)
    by_class = _by_class(inside, splits)
    alone = sum(number == 1 for number in by_class.values())
    if 2 * alone > len(by_class):
        return unlabelled(f"{alone:,} of {len(by_class):,} folders hold a single image: no classes")
    train = sum(tops[name] for name in splits[0]) if splits else round(0.8 * sum(tops.values()))
    where = f"{classes or len(by_class):,} folders of classes"
    if splits:
        where += f", trained on {_names(splits[0])}, tested on {_names(splits[1])}"
        rest = [name for name in tops if name not in (*splits[0], *splits[1]) and _UNLABELLED.fullmatch(name)]
        if rest:
            why = f"images without labels in {rest[0]}/, beside {where}"
            return Labels("folder", path / rest[0], why, classes, tops[rest[0]], train, path)
    return Labels("imagefolder", path, where, classes or len(by_class), train, train)


def shown_one(names: Mapping[str, int]) -> str:
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


def _judged(path: Path, inside: Mapping[str, int], whole: bool) -> tuple[str, int]:
    """Why the folders can hardly be classes, or `""`, and how many there are; of a folder that was not counted to its
    end, by what was seen."""
    if whole:
        source = imagefolder(path, seed=0, test_fraction=0.2)
        return source.doubt, len(source.classes)
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for folder, number in inside.items():
        top, _, rest = folder.partition("/")
        if top:
            found[top][rest] = number
    return layout.doubt(path, {"": [ClassFolder(name, f"{name}/", own) for name, own in found.items()]}, Words()), 0


def _splits(tops: Mapping[str, int]) -> tuple[list[str], list[str]] | None:
    """Folders to train on and to test on, as `imagefolder` has them."""
    train, test, validation = (
        [name for name in sorted(tops) if name.strip().lower() in names]
        for names in (layout.TRAIN_NAMES, layout.TEST_NAMES, layout.VALIDATION_NAMES)
    )
    if not train or not (test or validation):
        return None
    return (train + validation, test) if test else (train, validation)


def _by_class(inside: Mapping[str, int], splits: tuple[list[str], list[str]] | None) -> Counter[str]:
    """Images of each class."""
    found: Counter[str] = Counter()
    for folder, number in inside.items():
        top, _, rest = folder.partition("/")
        if not splits and top:
            found[top] += number
        elif splits and top in (*splits[0], *splits[1]) and rest:
            found[rest.partition("/")[0]] += number
    return found


def look(root: Path, names: list[str], seconds: float = LOOKING) -> Seen:
    """Open images, as many as `seconds` allow."""
    shorter, grey, deep, refused = [], 0, [], []
    until = time.monotonic() + seconds
    for name in names:
        if time.monotonic() > until:
            break
        try:
            opened = open_picture(root / name, _DRAFT, "full", MAX_PIXELS)
        except Refused as reason:
            refused.append(f"{escape(name)}: {reason}")
            continue
        except Exception as error:  # broken files make decoders raise nearly anything
            refused.append(f"{escape(name)}: damaged: {' '.join(str(error).split())[:80]}")
            continue
        shorter.append(min(opened.width, opened.height))
        grey += opened.image.mode == "L" or _colourless(np.asarray(opened.image.convert("RGB").resize((32, 32))))
        deep += [opened.used] if opened.used else []
    return Seen(np.array(shorter, dtype=int), grey, deep, refused)


def _colourless(pixels: np.ndarray) -> bool:
    return bool(np.ptp(pixels.astype(int), axis=2).max() <= 8)
