"""Volumes cut to blocks: cubes of voxels, and the class of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sslflow.data.annotated import IGNORED
from sslflow.data.splits import NO_LABEL

BACKGROUND = 0
"""In label volumes: no tissue."""


@dataclass(frozen=True)
class Block:
    """A cube of a volume."""

    place: tuple[int, int, int]
    """Its first voxel in the volume as it was prepared; below 0 where the volume was filled up."""
    values: np.ndarray
    """uint8 `(side, side, side)`."""
    tissues: np.ndarray | None
    """Classes of its voxels, uint8 of that shape, `IGNORED` where the volume was filled up; None: not known."""

    def label(self, least: float) -> int:
        """The most frequent tissue, from 0, which is the first after the background; −1 where none takes the share
        `least` of the block, or it isn't known."""
        if self.tissues is None:
            return NO_LABEL
        counts = np.bincount(self.tissues.reshape(-1), minlength=IGNORED + 1)[BACKGROUND + 1 : IGNORED]
        most = int(counts.argmax())
        return most if counts[most] >= max(1, least * self.tissues.size) else NO_LABEL


def cut(values: np.ndarray, tissues: np.ndarray | None, side: int, stride: int) -> Iterator[Block]:
    """Cubes of `side` voxels, `stride` voxels apart, of a uint8 volume. What they leave over lies at its two ends;
    where an axis is shorter than a cube, both ends are filled up with the darkest value."""
    missing = [max(0, side - size) for size in values.shape]
    widths = [(rest // 2, rest - rest // 2) for rest in missing]
    if any(missing):
        values = np.pad(values, widths)
        tissues = None if tissues is None else np.pad(tissues, widths, constant_values=IGNORED)
    starts = [range((size - side) % stride // 2, size - side + 1, stride) for size in values.shape]
    for begin in itertools.product(*starts):
        here = tuple(slice(first, first + side) for first in begin)
        place = tuple(first - before for first, (before, _) in zip(begin, widths, strict=True))
        yield Block((place[0], place[1], place[2]), values[here], None if tissues is None else tissues[here])
