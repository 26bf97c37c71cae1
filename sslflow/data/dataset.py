"""Prepared images on disk: uint8 shards, memory-mapped, and a manifest with a row for each image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sslflow import paths
from sslflow.data.splits import POOL, TEST, TRAIN
from sslflow.runtime.files import read_json


@dataclass(frozen=True)
class ImageFormat:
    """What all prepared images have in common."""

    channels: int
    size: int
    """Pixels: images are squares."""
    mean: tuple[float, ...]
    """Of each channel, over the images to pretrain on, as shares of white."""
    std: tuple[float, ...]


class Dataset:
    """What `prepare` wrote: `manifest.parquet`, `dataset.json` and `shard-*.npy` of `(n, channels, size, size)` uint8.

    The manifest's columns: row, shard, index (within the shard), path, split, label (−1: none), width, height (of the
    file), sha256 (of the file's bytes), pixels (hash of the prepared pixels). Splits: `pool` (pretraining only,
    labels unused), `train` and `test` (labelled). Without a `pool`, pretraining sees `train`.
    """

    def __init__(self, folder: Path = paths.PREPARED) -> None:
        if not (folder / "dataset.json").exists():
            raise ValueError(f"{folder}: no prepared images here; run `dvc repro prepare` first")
        self.folder = folder
        self.manifest = pq.read_table(folder / "manifest.parquet")
        facts = read_json(folder / "dataset.json")
        self.classes: list[str] = facts["classes"]
        self.channels: int = facts["channels"]
        self.image_size: int = facts["image_size"]
        self.format = ImageFormat(self.channels, self.image_size, tuple(facts["mean"]), tuple(facts["std"]))

    def __len__(self) -> int:
        return self.manifest.num_rows

    @cached_property
    def splits(self) -> np.ndarray:
        """Split of each row, `(n,)` str."""
        return np.asarray(self.manifest["split"].to_pylist(), dtype=str)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index of each row, `(n,)` int64; −1 where there is none."""
        return self.manifest["label"].to_numpy()

    @cached_property
    def paths(self) -> list[str]:
        """Name of each row's image, as the source gives it."""
        return self.manifest["path"].to_pylist()

    @property
    def labelled(self) -> bool:
        """Whether there are labelled images to train a probe on and to test it on."""
        return all((self.labels[self.rows(split)] >= 0).any() for split in (TRAIN, TEST))

    def rows(self, split: str) -> np.ndarray:
        """Rows of one split, in manifest order."""
        return np.flatnonzero(self.splits == split)

    def labelled_rows(self, split: str) -> np.ndarray:
        """Rows of one split that have a label, in manifest order."""
        rows = self.rows(split)
        return rows[self.labels[rows] >= 0]

    @property
    def pretraining_rows(self) -> np.ndarray:
        """Rows that pretraining may see: the pool, or else the training split; never a test image."""
        pool = self.rows(POOL)
        return pool if len(pool) else self.rows(TRAIN)

    def read(self, rows: np.ndarray | Tensor) -> Tensor:
        """Images of the rows given, in that order, uint8 `(len(rows), channels, size, size)`."""
        rows = np.asarray(rows)
        images = np.empty((len(rows), self.channels, self.image_size, self.image_size), dtype=np.uint8)
        shard, index = self._places[0][rows], self._places[1][rows]
        for number in np.unique(shard):
            here = shard == number
            images[here] = self._shards[number][index[here]]
        return torch.from_numpy(images)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return self.manifest["shard"].to_numpy(), self.manifest["index"].to_numpy()

    @cached_property
    def _shards(self) -> list[np.ndarray]:
        return [np.load(file, mmap_mode="r") for file in sorted(self.folder.glob("shard-*.npy"))]
