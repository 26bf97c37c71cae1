"""What a source of images yields, and the names of the splits. Imports no torch: worker processes import it too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

Split = Literal["pool", "train", "test"]
Picture = Path | bytes | np.ndarray
"""An image file, the bytes of one, or uint8 pixels `(height, width)` or `(height, width, channels)`."""

POOL: Final = "pool"
TRAIN: Final = "train"
TEST: Final = "test"
NO_LABEL = -1


@dataclass(frozen=True)
class Record:
    """One image of a source, not yet decoded."""

    name: str
    split: Split
    picture: Picture
    label: int = NO_LABEL
    """Index into the source's classes, −1 where there is none."""


@dataclass(frozen=True)
class Rejected:
    """A file that is known to be unusable before it is decoded, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Other:
    """A file that does not call itself an image: counted, not read."""

    name: str


Item = Record | Rejected | Other


@dataclass(frozen=True)
class Source:
    """Images from one place. `records` can be called again and again, and yields the same in the same order: first
    those to test on, then those to train on, then the pool, so that of two equal images the one that comes first is
    the one to keep."""

    classes: tuple[str, ...]
    records: Callable[[], Iterator[Item]]


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


def held_out(names: Sequence[str], labels: Sequence[int] | np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Indices of the images to test on: of each class `fraction`, rounded, at least one of each but never all.

    Chosen by a hash of seed and name, so that the choice needs no order, no generator, and hardly changes when
    images are added.
    """
    labels = np.asarray(labels)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1) if fraction > 0 else 0
        chosen += sorted(members, key=lambda row: _place(seed, names[int(row)]))[:count]
    return np.asarray(sorted(chosen), dtype=np.int64)


def _place(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} split {name}".encode("utf-8", "surrogateescape")).digest()
