"""Hashes by which equal pictures are found. Imports no torch."""

from __future__ import annotations

import hashlib
import struct
from array import array

import numpy as np
import pyarrow as pa
from PIL import Image

_WORDS = 1024
"""Of 64 bits, in a block; what is shorter goes into SHA-256 as it is."""
_AT_ONCE = 12
"""Blocks: their upper halves, which are copied, stay in the processor's cache."""
_FACTORS = np.frombuffer(hashlib.shake_256(b"factors").digest(2 * 8 * _WORDS), "<u8").reshape(2, _WORDS) | 1

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
    """128 bits by which contents that lie contiguous in memory can be told apart, though not against somebody who makes
    two that collide.

    SHA-256 of two sums for each block of 8 KiB, of its words of 64 bits and of their upper halves, each times an odd
    number fixed at random, modulo 2^64 (multilinear hashing; Lemire and Kaser, arXiv:1202.4961). SHA-256 of everything
    takes four times as long. Two blocks that differ in one word never have the same sums; any others have with a
    probability of 2^-32 at most, and of 2^-63 where the lowest bit of a word differs, in each block anew.
    """
    digest = hashlib.sha256(repr(facts).encode())
    for content in contents:
        values = np.frombuffer(content, np.uint8)
        rest = len(values) % (8 * _WORDS)
        blocks = values[: len(values) - rest].view("<u8").reshape(-1, _WORDS)
        for start in range(0, len(blocks), _AT_ONCE):
            words = blocks[start : start + _AT_ONCE]
            digest.update(words @ _FACTORS[0])
            digest.update((words >> 32) @ _FACTORS[1])
        digest.update(values[len(values) - rest :].data)
    return digest.digest()[:16]


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
