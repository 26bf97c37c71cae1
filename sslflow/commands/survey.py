"""What lies in a folder of a user's, told from a bounded look: how many images and videos, how large, labelled how."""

from __future__ import annotations

import os
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sslflow.commands.labelling import Labels, labels
from sslflow.ingest.images.decode import MAX_PIXELS
from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.kinds import by_ending, is_picture
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
    return Survey(root, counted, labels(root, counted.images, counted.whole), look(root, counted.chosen))


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
            if Path(name).suffix.lower() in SUFFIXES:
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


def look(root: Path, names: list[str], seconds: float = LOOKING) -> Seen:
    """Open images, as many as `seconds` allow."""
    shorter, grey, deep, refused = [], 0, [], []
    until = time.monotonic() + seconds
    for name in names:
        if time.monotonic() > until:
            break
        try:
            with warnings.catch_warnings(action="ignore"):  # of Pillow, about odd metadata
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
