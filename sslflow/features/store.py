"""Where features are kept: one memory-mapped array, rows in manifest order."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslflow.runtime.files import read_json, reading
from sslflow.runtime.parts import at_a_time, budget


class FeatureStore:
    """Features of all images by one encoder: `features.npy`, memory-mapped, rows in manifest order, and `meta.json`."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "meta.json").exists():
            raise ValueError(f"{folder}: no features here; run `dvc repro extract` first")
        file = folder / "features.npy"
        self._file = file
        facts = read_json(folder / "meta.json")
        with reading(folder / "meta.json"):
            self.encoder_sha256: str = facts["encoder_sha256"]
        with reading(file):
            self.array: np.ndarray = np.lib.format.open_memmap(file, mode="r")
            if self.array.ndim != 2:
                raise TypeError(f"expected a table of rows and features, found sizes {self.array.shape}")

    def part(self, rows: np.ndarray) -> Tensor:
        """Features of the rows given, in rising order, float32 `(n, dim)` on the CPU. Rows that follow each other, as
        those of a split do, are mapped: they take no memory until they are looked at, and give it back. Others, where
        they are many, are mapped from a copy in the same folder, which no name leads to."""
        if not len(rows) or rows[-1] - rows[0] + 1 != len(rows):
            return torch.from_numpy(self._gathered(rows))
        mapped = np.load(self._file, mmap_mode="c")  # torch wants what could be written to
        return torch.from_numpy(mapped[rows[0] : rows[-1] + 1])

    def _gathered(self, rows: np.ndarray) -> np.ndarray:
        """Rows that lie apart: above a CPU's budget in a file without a name, which goes with the array."""
        shape = len(rows), self.dim
        if len(rows) * self.dim * self.array.itemsize <= budget(torch.device("cpu")):
            return self.array[rows]
        with tempfile.TemporaryFile(dir=self._file.parent) as handle:
            found = np.memmap(handle, self.array.dtype, "w+", shape=shape)
        step = at_a_time(self.dim)
        for start in range(0, len(rows), step):
            found[start : start + step] = self.array[rows[start : start + step]]
        return found

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.array.shape[1]
