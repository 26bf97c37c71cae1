"""Hashes by which equal pictures are found. Imports no torch."""

from __future__ import annotations

import struct
from array import array

import numpy as np
import pyarrow as pa
from PIL import Image
from xxhash import xxh3_128

_HALVES = struct.Struct("<QQ")
_FEW = 1024


class FirstRows:
    """The first row of each hash of 128 bits: a table of 36 to 72 bytes a hash. A dictionary takes 150 to 200."""

    def __init__(self) -> None:
        self._count = 0
        self._hashes, self._rows = _empty(_FEW)

    def __contains__(self, digest: bytes) -> bool:
        return self.get(digest) is not None

    def get(self, digest: bytes) -> int | None:
        row = self._rows[_slot(self._hashes, self._rows, *_HALVES.unpack(digest))]
        return row if row >= 0 else None

    def add(self, digest: bytes, row: int) -> None:
        """A row from 0 on; it counts for nothing where the hash has one."""
        halves = _HALVES.unpack(digest)
        slot = _slot(self._hashes, self._rows, *halves)
        if self._rows[slot] >= 0:
            return
        self._hashes[2 * slot], self._hashes[2 * slot + 1] = halves
        self._rows[slot] = row
        self._count += 1
        if 3 * self._count > 2 * len(self._rows):
            self._double()

    def _double(self) -> None:
        hashes, rows = _empty(2 * len(self._rows))
        for former, row in enumerate(self._rows):
            if row >= 0:
                halves = self._hashes[2 * former], self._hashes[2 * former + 1]
                slot = _slot(hashes, rows, *halves)
                hashes[2 * slot], hashes[2 * slot + 1] = halves
                rows[slot] = row
        self._hashes, self._rows = hashes, rows


def _empty(size: int) -> tuple[array[int], array[int]]:
    return array("Q", bytes(16)) * size, array("q", [-1]) * size


def _slot(hashes: array[int], rows: array[int], first: int, second: int) -> int:
    """Where a hash is, or would be: the place that its bits name, or the next one that no other has taken."""
    last = len(rows) - 1
    slot = first & last
    while rows[slot] >= 0 and (hashes[2 * slot] != first or hashes[2 * slot + 1] != second):
        slot = (slot + 1) & last
    return slot


def hashed(facts: object, *contents: bytes | np.ndarray) -> bytes:
    """128 bits (XXH3) by which contents that lie contiguous in memory can be told apart, though not against somebody
    who makes two that collide."""
    digest = xxh3_128(repr(facts).encode())
    for content in contents:
        digest.update(content.data if isinstance(content, np.ndarray) else content)
    return digest.digest()


def stored(image: Image.Image) -> bytes | np.ndarray:
    """The pixels of an image of mode RGB or RGBA, four bytes each, of which the last one is 255 in RGB: as Pillow holds
    them, not copied, where that is in one piece."""
    try:
        values = pa.array(image).flatten().to_numpy()
    except ValueError:  # above 16 MiB
        values = None
    # Decoders fill the byte that RGB has no use for with 255; one that doesn't must not hide a repeat.
    if values is None or (image.mode == "RGB" and np.bitwise_and.reduce(values.view("<u4")) >> 24 != 255):
        return image.convert("RGBA").tobytes()
    return values
