"""In which row each hash came first, in little memory. Imports no torch."""

from __future__ import annotations

import struct
from array import array

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
