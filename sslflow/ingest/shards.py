"""Prepared data written as it comes: shards of bounded size, a manifest, and the mean and spread of each split."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sslflow.data.whole import write_hashes
from sslflow.runtime.files import sha256

SHARD_BYTES = 64 * 2**20
COLUMNS = (
    ("row", pa.int64()),
    ("shard", pa.int32()),
    ("index", pa.int32()),
    ("path", pa.string()),
    ("split", pa.string()),
    ("label", pa.int64()),
    ("group", pa.string()),
)
"""Of every manifest."""
_ROW_GROUP = 16_384
_BLOCK_BYTES = 2**19
"""Written and hashed at once: what is still in the processor's cache."""


class Moments:
    """Exact sums over pixels, so that mean and spread don't depend on the order in which they come."""

    def __init__(self) -> None:
        self._pixels = 0
        self._sums: list[int] = []
        self._squares: list[int] = []

    def add(self, pixels: np.ndarray) -> None:
        """Pixels, uint8 `(…, channels, height, width)`."""
        channels = pixels.shape[-3]
        axes = (*range(pixels.ndim - 3), pixels.ndim - 2)
        # 255² fits into 16 bits, and the sum of a line of 66,000 of them into 32: the narrower, the faster.
        lines = pixels.sum(-1, dtype=np.uint32), np.square(pixels, dtype=np.uint16).sum(-1, dtype=np.uint32)
        sums, squares = (line.sum(axes, dtype=np.int64).tolist() for line in lines)
        self._pixels += pixels.size // channels
        self._sums = [a + b for a, b in zip(self._sums or [0] * channels, sums, strict=True)]
        self._squares = [a + b for a, b in zip(self._squares or [0] * channels, squares, strict=True)]

    def merge(self, other: Moments) -> None:
        """Add what another one has added up."""
        self._pixels += other._pixels
        self._sums = [a + b for a, b in zip(self._sums or [0] * len(other._sums), other._sums, strict=True)]
        self._squares = [a + b for a, b in zip(self._squares or [0] * len(other._squares), other._squares, strict=True)]

    @property
    def constant(self) -> bool:
        """Whether all pixels are of one colour."""
        return all(
            self._pixels * square == total * total for total, square in zip(self._sums, self._squares, strict=True)
        )

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of each channel, in [0, 1]; a spread is at least 1/255: it will divide."""
        means = [total / self._pixels for total in self._sums]
        variances = [
            (self._pixels * square - total * total) / self._pixels**2
            for total, square in zip(self._sums, self._squares, strict=True)
        ]
        stds = [max(math.sqrt(variance), 1.0) / 255 for variance in variances]
        return tuple(mean / 255 for mean in means), tuple(stds)


class _Shards:
    """Writes and hashes the shards of one field, a block of examples at a time."""

    def __init__(self, folder: Path, name: str, kind: str, shape: tuple[int, ...], capacity: int) -> None:
        self._folder, self._name, self._capacity = folder, name, capacity
        block = _BLOCK_BYTES // (np.dtype(kind).itemsize * math.prod(shape) or 1)
        self._block = np.empty((min(max(block, 1), capacity), *shape), kind)
        self._waiting = self._rows = 0
        self._handle: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self.hashes: dict[str, str] = {}
        """SHA-256 of each shard that is whole, by its name."""

    def add(self, values: Any) -> None:
        self._block[self._waiting] = values
        self._waiting += 1
        if self._waiting == len(self._block):
            self._write()

    def end(self) -> None:
        """Of a shard, if one has begun."""
        if self._waiting:
            self._write()
        if self._handle is None:
            return
        digest, file = self._digest.hexdigest(), Path(self._handle.name)
        with self._handle as handle:
            if self._rows < self._capacity:
                handle.seek(0)
                handle.write(self._header(self._rows))
            handle.flush()
            os.fsync(handle.fileno())
        self.hashes[file.name] = digest if self._rows == self._capacity else sha256(file)
        self._handle, self._rows = None, 0

    def discard(self) -> None:
        """A shard that has begun."""
        if self._handle is not None:
            Path(self._handle.name).unlink()
            with contextlib.suppress(OSError):  # the disk may be full
                self._handle.close()

    def _write(self) -> None:
        if self._handle is None:
            self._handle = (self._folder / f"{self._name}-{len(self.hashes):05d}.npy").open("wb")
            header = self._header(self._capacity)
            self._digest = hashlib.sha256(header)
            self._handle.write(header)
        block = self._block[: self._waiting].data
        self._digest.update(block)
        self._handle.write(block)
        self._rows, self._waiting = self._rows + self._waiting, 0

    def _header(self, rows: int) -> bytes:
        """As long for any number of rows: NumPy leaves room for it to grow."""
        header = io.BytesIO()
        shape = (rows, *self._block.shape[1:])
        facts = {"descr": self._block.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, facts)
        return header.getvalue()


class ShardWriter:
    """Writes `<field>-00000.npy`, … of at most `SHARD_BYTES` each, as many for every field, and `manifest.parquet` into
    a folder, and the shards' hashes.

    A context manager: leaving it without an error writes what is left. Raises `OSError` where the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        fields: Mapping[str, tuple[str, tuple[int, ...]]],
        columns: Sequence[tuple[str, pa.DataType]],
        measured: str = "",
    ) -> None:
        """`fields`: NumPy type (`"|u1"`, `"<i2"`) and shape of one example of each; `columns`: of the manifest, besides
        `COLUMNS`; `measured`: the field, uint8 `(…, channels, height, width)`, whose mean and spread are wanted, if
        any."""
        self._folder, self._measured = folder, measured
        largest = max((np.dtype(kind).itemsize * math.prod(shape) for kind, shape in fields.values()), default=1)
        self._capacity = max(1, SHARD_BYTES // largest)
        self._shards = {
            name: _Shards(folder, name, kind, shape, self._capacity) for name, (kind, shape) in fields.items()
        }
        self._schema = pa.schema([*COLUMNS, *columns])
        self._columns: dict[str, list] = {name: [] for name in self._schema.names}
        self._manifest = pq.ParquetWriter(folder / "manifest.parquet", self._schema)
        self._moments: defaultdict[str, Moments] = defaultdict(Moments)
        self._counts: Counter[str] = Counter()
        self._filled = self._rows = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end_shard()
                self._flush_manifest()
        finally:
            for shards in self._shards.values():
                shards.discard()
            self._manifest.close()
        if kind is None:
            hashes = {name: digest for shards in self._shards.values() for name, digest in shards.hashes.items()}
            write_hashes(self._folder, hashes)

    def __len__(self) -> int:
        return self._rows

    def add(self, fields: Mapping[str, Any], columns: Mapping[str, Any], moments: Moments | None = None) -> int:
        """Append one example, with its columns of the manifest but for its place; its row. `moments`: those of the
        field that is measured, where they are known."""
        place = self._place(fields)
        if self._measured and moments is None:
            self._moments[columns["split"]].add(fields[self._measured])
        elif moments is not None:
            self._moments[columns["split"]].merge(moments)
        return self._note({**place, **columns})

    def _place(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Take the example in; where it lies."""
        if self._filled == self._capacity:
            self._end_shard()
        place = {"shard": self._rows // self._capacity, "index": self._filled}
        for name, values in fields.items():
            self._shards[name].add(values)
        self._filled += 1
        return place

    def _note(self, columns: Mapping[str, Any]) -> int:
        row = self._rows
        for name, value in {"row": row, **columns}.items():
            self._columns[name].append(value)
        self._counts[columns["split"]] += 1
        self._rows += 1
        if len(self._columns["row"]) == _ROW_GROUP:
            self._flush_manifest()
        return row

    def count(self, split: str) -> int:
        """Examples of a split so far."""
        return self._counts[split]

    def mean_and_std(self, split: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of each channel over all pixels of a split, in [0, 1]; a spread is at least 1/255: it will divide."""
        return self._moments[split].mean_and_std()

    def _end_shard(self) -> None:
        for shards in self._shards.values():
            shards.end()
        self._filled = 0

    def _flush_manifest(self) -> None:
        if self._columns["row"]:
            self._manifest.write_table(pa.table(self._columns, schema=self._schema))
            self._columns = {name: [] for name in self._schema.names}
