"""Clips written to the folder from which `sslflow.data.clips.Clips` reads them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sslflow.ingest.videos.cut import Grid

SHARD_BYTES = 64 * 2**20
MANIFEST = pa.schema(
    [
        ("clip", pa.int64()),
        ("shard", pa.int32()),
        ("index", pa.int32()),
        ("video", pa.string()),
        ("number", pa.int64()),
        ("source", pa.string()),
        ("start", pa.float64()),
        ("split", pa.string()),
        ("label", pa.int64()),
        ("audible", pa.bool_()),
        ("loudness", pa.float32()),
        ("duration", pa.float64()),
        ("size", pa.int64()),
        ("fps", pa.float64()),
        ("rate", pa.int64()),
        ("x0", pa.float32()),
        ("y0", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("sha256", pa.string()),
    ]
)


class ClipWriter:
    """Writes `frames-00000.npy` and `sound-00000.npy`, … and at the end `manifest.parquet`; `count` clips in all.

    A context manager. Leaving it before all clips have been added is an error.
    """

    def __init__(self, folder: Path, grid: Grid, count: int) -> None:
        self._folder, self._count = folder, count
        self._shapes = {
            "frames": ((grid.frames, 3, grid.side, grid.side), "|u1"),
            "sound": ((grid.samples,), "<i2"),
        }
        self._per_shard = max(1, SHARD_BYTES // (3 * grid.frames * grid.side**2))
        self._rows: dict[str, list] = {name: [] for name in MANIFEST.names}
        self._open = ExitStack()
        self._files: dict[str, Any] = {}

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close()
        if kind is None:
            assert len(self) == self._count, f"{len(self)} clips of {self._count}"
            pq.write_table(pa.table(self._rows, schema=MANIFEST), self._folder / "manifest.parquet")

    def __len__(self) -> int:
        return len(self._rows["clip"])

    def add(self, frames: np.ndarray, sound: np.ndarray, columns: Mapping[str, Any]) -> None:
        """One clip, uint8 `(frames, 3, side, side)` and int16 `(samples,)`, with its columns of the manifest."""
        shard, index = divmod(len(self), self._per_shard)
        if not index:
            self._close()
            self._start(shard)
        self._files["frames"].write(np.ascontiguousarray(frames).data)
        self._files["sound"].write(np.ascontiguousarray(sound, "<i2").data)
        for name, value in {"clip": len(self), "shard": shard, "index": index, **columns}.items():
            self._rows[name].append(value)

    def _start(self, shard: int) -> None:
        rows = min(self._per_shard, self._count - shard * self._per_shard)
        for name, (shape, kind) in self._shapes.items():
            file = self._open.enter_context((self._folder / f"{name}-{shard:05d}.npy").open("wb"))
            np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": (rows, *shape)})
            self._files[name] = file

    def _close(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._files.clear()
        self._open.close()


class Moments:
    """Exact sums over frames, so that mean and spread don't depend on the order of the clips."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), np.int64)

    def add(self, frames: np.ndarray) -> None:
        """Frames, uint8 `(n, 3, side, side)`."""
        for channel in range(3):
            self._histogram[channel] += np.bincount(frames[:, channel].ravel(), minlength=256)

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Of each channel, in [0, 1]; a spread is at least 1/255: it will divide."""
        pairs = list(self._of_channels())
        return [mean / 255 for mean, _ in pairs], [max(std, 1.0) / 255 for _, std in pairs]

    def _of_channels(self) -> Iterator[tuple[float, float]]:
        for counts in self._histogram.tolist():
            pixels = sum(counts)
            total = sum(value * count for value, count in enumerate(counts))
            square = sum(value * value * count for value, count in enumerate(counts))
            yield total / pixels, math.sqrt((pixels * square - total * total) / pixels**2)
