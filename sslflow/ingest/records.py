"""What a source of images yields. Imports no torch: worker processes import it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslflow.data.splits import NO_LABEL, Split

Picture = Path | bytes | np.ndarray
"""An image file, the bytes of one, or uint8 pixels `(height, width)` or `(height, width, channels)`."""


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
