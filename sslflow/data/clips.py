"""Prepared clips on disk: frames and sound in memory-mapped shards, and a manifest with a row for each clip."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sslflow import paths
from sslflow.data.raw import ClipFormat, Raw
from sslflow.data.splits import TEST, TRAIN
from sslflow.runtime.files import read_json


class Clips:
    """What the stage `clips` wrote: `manifest.parquet`, `clips.json`, `frames-*.npy` uint8 `(n, frames, 3, side, side)`
    and `sound-*.npy` int16 `(n, samples)`.

    The manifest's columns: clip, shard, index (within the shard), video (path), number (of the video), source, start
    (seconds from the start of the file; frame i is what is to be seen at `start + i / fps`), split (`train`, `test`),
    label (−1: none), audible, loudness (dB of full scale), and of the file duration (seconds, null where it doesn't
    say), size (bytes), fps, rate (0: no sound) and sha256; x0, y0, x1, y1, a box in the frame, NaN where none is known.
    """

    def __init__(self, folder: Path = paths.CLIPS) -> None:
        """Raises `ValueError` where there are no clips."""
        if not (folder / "clips.json").exists():
            raise ValueError(f"{folder}: no prepared clips here; run `dvc repro clips` first")
        self.folder = folder
        self.manifest = pq.read_table(folder / "manifest.parquet")
        facts = read_json(folder / "clips.json")
        self.classes: list[str] = facts["classes"]
        own = {name: facts[name] for name in ("frames", "side", "fps", "rate", "seconds")}
        self.format = ClipFormat(**own, mean=tuple(facts["mean"]), std=tuple(facts["std"]))

    def __len__(self) -> int:
        return self.manifest.num_rows

    @cached_property
    def splits(self) -> np.ndarray:
        """Split of each clip, `(n,)` str."""
        return np.asarray(self.manifest["split"].to_pylist(), dtype=str)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index of each clip, `(n,)` int64; −1 where there is none."""
        return self.manifest["label"].to_numpy()

    @cached_property
    def videos(self) -> np.ndarray:
        """Number of each clip's video, `(n,)` int64."""
        return self.manifest["number"].to_numpy()

    @cached_property
    def sources(self) -> np.ndarray:
        """Number of each clip's source, `(n,)` int64: several videos may have the same one, no video has several, and
        no source is in both splits."""
        return np.unique(np.asarray(self.manifest["source"].to_pylist(), dtype=str), return_inverse=True)[1]

    @cached_property
    def starts(self) -> np.ndarray:
        """Start of each clip in its video, seconds, `(n,)` float64."""
        return self.manifest["start"].to_numpy()

    @cached_property
    def audible(self) -> np.ndarray:
        """Whether each clip's sound is there and no silence, `(n,)` bool; all, unless `clips.sound` is `optional`."""
        return self.manifest["audible"].to_numpy(zero_copy_only=False)

    @cached_property
    def paths(self) -> list[str]:
        """Path of each clip's video, escaped, as the source gives it."""
        return self.manifest["video"].to_pylist()

    @cached_property
    def positions(self) -> np.ndarray:
        """The box x0, y0, x1, y1 in [0, 1] of the thing that sounds, float32 `(n, 4)`; NaN where unknown."""
        return np.stack([self.manifest[edge].to_numpy() for edge in ("x0", "y0", "x1", "y1")], axis=1)

    @property
    def labelled(self) -> bool:
        """Whether there are labelled clips to train a probe on and to test it on."""
        return all((self.labels[self.rows(split)] >= 0).any() for split in (TRAIN, TEST))

    def rows(self, split: str) -> np.ndarray:
        """Rows of one split, in manifest order."""
        return np.flatnonzero(self.splits == split)

    @property
    def pretraining_rows(self) -> np.ndarray:
        """Rows that pretraining may see: the training split."""
        return self.rows(TRAIN)

    def read(self, rows: np.ndarray | Tensor) -> Raw:
        """The clips of the rows given, in that order."""
        rows = np.asarray(rows)
        form = self.format
        frames = np.empty((len(rows), form.frames, 3, form.side, form.side), np.uint8)
        sound = np.empty((len(rows), form.samples), np.int16)
        shard, index = self._places[0][rows], self._places[1][rows]
        for number in np.unique(shard):
            here = shard == number
            frames[here] = self._shards[number][0][index[here]]
            sound[here] = self._shards[number][1][index[here]]
        sources = torch.from_numpy(self.sources[rows])
        return Raw(torch.from_numpy(frames), torch.from_numpy(sound), sources)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return self.manifest["shard"].to_numpy(), self.manifest["index"].to_numpy()

    @cached_property
    def _shards(self) -> list[tuple[np.ndarray, np.ndarray]]:
        frames, sound = (sorted(self.folder.glob(f"{name}-*.npy")) for name in ("frames", "sound"))
        return [
            (np.load(seen, mmap_mode="r"), np.load(heard, mmap_mode="r"))
            for seen, heard in zip(frames, sound, strict=True)
        ]
