"""What a source of images yields. Imports no torch: worker processes import it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sslflow.data.annotated import IGNORED
from sslflow.data.splits import NO_LABEL, Split

LEFT_OUT = "left out"
UNANNOTATED = "image counts as not annotated"
MENDED = "mended"
Fate = Literal["left out", "image counts as not annotated", "mended"]
"""What becomes of an annotation that is wrong: it alone is left out; all that is said of its image; it is used."""

Picture = Path | bytes | np.ndarray
"""An image file, the bytes of one, or uint8 pixels `(height, width)` or `(height, width, channels)`."""


NO_CLASS = IGNORED
"""In masks that are made: a pixel of which nothing is known, or wanted."""


@dataclass(frozen=True)
class Masks:
    """What the numbers in the files of masks mean."""

    classes: tuple[str, ...] = ()
    """Names; none: the numbers that are found are classes, named by their number."""
    values: tuple[int, ...] = ()
    """The number of each class; none: 0, 1, 2, …"""
    ignore: int = NO_CLASS
    """The number of pixels that count for nothing; −1: there are none."""

    def __post_init__(self) -> None:
        """Raises `ValueError` where they don't fit together."""
        if len(self.classes) > NO_CLASS or len(self.values) > NO_CLASS:
            raise ValueError(f"masks can have {NO_CLASS} classes at most, found {len(self.classes or self.values)}")
        if self.classes and self.values and len(self.classes) != len(self.values):
            raise ValueError(f"{len(self.classes)} classes and {len(self.values)} values: each class needs its value")
        for what, named in (("classes", self.classes), ("values", self.values)):
            if twice := [one for one in dict.fromkeys(named) if named.count(one) > 1]:
                raise ValueError(f"{what} names one twice: {twice[0]}")
        if wrong := [value for value in self.values if not 0 <= value < 2**16]:
            raise ValueError(f"values are from 0 to {2**16 - 1}, found {wrong[0]}")
        if self.ignore in self.numbers:
            raise ValueError(
                f"{self.ignore} is both the value of a class and what is ignored; let ignore be a number that isn't in "
                "the masks, or -1"
            )

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each class in the files, as far as it is told."""
        return self.values or tuple(range(len(self.classes)))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, as far as these are told."""
        return self.classes or tuple(map(str, self.values))


Shape = tuple[np.ndarray, ...] | Mapping[str, Any]
"""Where a thing is: polygons, each float64 `(2 n,)`, x, y, x, y, …, or COCO's run lengths, with `counts` and `size`."""


@dataclass(frozen=True)
class Thing:
    """One thing in an image, in pixels of the picture that was annotated, whose first is from 0 to 1."""

    label: int
    """Index into the source's classes of things."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom; None: what its shape takes."""
    shape: Shape | None = None
    ignored: bool = False
    """Neither found nor missed."""


@dataclass(frozen=True)
class Annotation:
    """What is known of one image, as it stands in files, not yet read and not checked."""

    mask: Picture | None = None
    """Numbers of classes, each pixel one."""
    things: tuple[Thing, ...] | None = None
    """None: it isn't known which things are there."""
    painted: bool = False
    """Whether the shapes of the things make a mask."""
    size: tuple[int, int] | None = None
    """Width and height of the image, as whoever annotated it says."""
    unusable: str = ""
    """Why nothing of it can be used, if that is known already."""


@dataclass(frozen=True)
class Flaw:
    """What is wrong with an annotation, and what becomes of it."""

    name: str
    """The image, or the annotation where there is no image."""
    reason: str
    """What kind of flaw, and after a colon what is special in it."""
    fate: Fate


@dataclass(frozen=True)
class Record:
    """One image of a source, not yet decoded."""

    name: str
    split: Split
    picture: Picture
    label: int = NO_LABEL
    """Index into the source's classes, −1 where there is none."""
    group: str | None = None
    """What a split never divides: images of the same thing have the same group. None: the image stands alone."""
    truth: Annotation | None = None
    captions: tuple[str, ...] = ()
    depth: Picture | None = None
    """How far away each pixel is, as a PNG of 16 bits; None: it isn't known."""


@dataclass(frozen=True)
class Rejected:
    """A file that is known to be unusable before it is decoded, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Other:
    """A file that does not call itself an image: counted, not read."""

    name: str


@dataclass(frozen=True)
class Passed:
    """A file that is hidden or that a system made, or a folder of such, with a slash at its end: counted, not read."""

    name: str
    files: int = 1


Item = Record | Rejected | Other | Passed


@dataclass(frozen=True)
class DepthMaps:
    """What the depth maps of a source have in common."""

    scale: float
    """Metres from one of their values to the next."""
    spare: Split | None = None
    """Where an image is to be that was chosen to test on and whose map can't be used, if images were divided for their
    maps' sake."""
    flaws: tuple[tuple[str, str], ...] = ()
    """Maps that belong to no image, and why."""


@dataclass(frozen=True)
class Source:
    """Images from one place. `records` can be called again and again, and yields the same in the same order: first
    those to test on, then those to train on, then the pool, so that of two equal images the one that comes first is
    the one to keep."""

    classes: tuple[str, ...]
    records: Callable[[], Iterator[Item]]
    notes: tuple[str, ...] = ()
    """Lines for the log: how the place was understood, and `warning: …` of what may be meant otherwise."""
    doubt: str = ""
    """Why the classes can hardly be meant: where labels are needed, a reason to stop."""
    masks: Masks | None = None
    """What the numbers in masks mean, where there are masks."""
    thing_classes: tuple[str, ...] = ()
    """What the things in images may be of."""
    flaws: tuple[Flaw, ...] = ()
    """What of the annotations is known to be wrong before an image is read, and is in no record."""
    depth: DepthMaps | None = None
    """Of a source with depth maps beside images."""


def escape(name: str) -> str:
    r"""A name as printable Unicode on one line, from which `unescape` gives back the very bytes of the file's name.

    A backslash becomes `\\`, a newline `\n`, a carriage return `\r`, a tab `\t`, and any other unprintable character
    and any byte that is not UTF-8 becomes `\xNN` for each of its bytes. Other scripts stay as they are.
    """
    return "".join(_ESCAPES.get(letter) or _escaped(letter) for letter in name)


def unescape(text: str) -> str:
    """The inverse of `escape`."""
    pieces = []
    rest = iter(text)
    for letter in rest:
        if letter != "\\":
            pieces.append(letter.encode())
            continue
        kind = next(rest)
        pieces.append(bytes.fromhex(next(rest) + next(rest)) if kind == "x" else _UNESCAPES[kind])
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))


_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNESCAPES = {text[1]: letter.encode() for letter, text in _ESCAPES.items()}
