"""Prepared images written as they come: shards of bounded size, a manifest, and the mean and spread of each split."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sslflow.data.splits import Split

SHARD_BYTES = 64 * 2**20
MANIFEST = pa.schema(
    [
        ("row", pa.int64()),
        ("shard", pa.int32()),
        ("index", pa.int32()),
        ("path", pa.string()),
        ("split", pa.string()),
        ("label", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("pixels", pa.string()),
    ]
)
_ROW_GROUP = 16_384


@dataclass
class _Moments:
    """Exact sums, so that mean and spread do not depend on the order of the images."""

    images: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(1, object))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(1, object))


class ShardWriter:
    """Writes `shard-00000.npy`, … of at most `SHARD_BYTES` and `manifest.parquet` into a folder; one shard is held
    in memory.

    A context manager: leaving it without an error writes what is left. Raises `OSError` where the disk is full.
    """

    def __init__(self, folder: Path, channels: int, size: int) -> None:
        self._folder = folder
        capacity = max(1, SHARD_BYTES // (channels * size * size))
        self._shard = np.empty((capacity, channels, size, size), np.uint8)
        self._shards = self._filled = 0
        self._columns: dict[str, list] = {name: [] for name in MANIFEST.names}
        self._manifest = pq.ParquetWriter(folder / "manifest.parquet", MANIFEST)
        self._moments: dict[Split, _Moments] = {}
        self.rows = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush_shard()
                self._flush_manifest()
        finally:
            self._manifest.close()

    def add(
        self,
        image: np.ndarray,
        *,
        split: Split,
        path: str,
        label: int,
        width: int,
        height: int,
        sha256: str,
        pixels: str,
    ) -> int:
        """Append one image, uint8 `(channels, size, size)`, with its columns of the manifest; its row."""
        self._shard[self._filled] = image
        place = (self.rows, self._shards, self._filled)
        values = (*place, path, split, label, width, height, sha256, pixels)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)
        moments = self._moments.setdefault(split, _Moments())
        flat = image.reshape(len(image), -1).astype(np.int64)
        moments.images += 1
        moments.sums = moments.sums + flat.sum(1).astype(object)
        moments.squares = moments.squares + (flat * flat).sum(1).astype(object)
        self._filled += 1
        self.rows += 1
        if self._filled == len(self._shard):
            self._flush_shard()
        if len(self._columns["row"]) == _ROW_GROUP:
            self._flush_manifest()
        return self.rows - 1

    def count(self, split: Split) -> int:
        """Images of a split so far."""
        return self._moments[split].images if split in self._moments else 0

    def mean_and_std(self, split: Split) -> tuple[list[float], list[float]]:
        """Of each channel over all pixels of a split, in [0, 1]; a spread is at least 1/255: it will divide."""
        moments = self._moments[split]
        pixels = moments.images * math.prod(self._shard.shape[2:])
        means = [total / pixels for total in moments.sums]
        variances = [
            (pixels * square - total * total) / pixels**2
            for total, square in zip(moments.sums, moments.squares, strict=True)
        ]
        return [mean / 255 for mean in means], [max(math.sqrt(variance), 1.0) / 255 for variance in variances]

    def _flush_shard(self) -> None:
        if not self._filled:
            return
        with (self._folder / f"shard-{self._shards:05d}.npy").open("wb") as handle:
            shape = (self._filled, *self._shard.shape[1:])
            np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": shape})
            handle.write(self._shard[: self._filled].data)
            handle.flush()
            os.fsync(handle.fileno())
        self._shards, self._filled = self._shards + 1, 0

    def _flush_manifest(self) -> None:
        if self._columns["row"]:
            self._manifest.write_table(pa.table(self._columns, schema=MANIFEST))
            self._columns = {name: [] for name in MANIFEST.names}
