"""Where features are kept: one memory-mapped array, rows in manifest order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sslflow.runtime.files import read_json


class FeatureStore:
    """Features of all images by one encoder: `features.npy`, memory-mapped, rows in manifest order, and `meta.json`."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "meta.json").exists():
            raise ValueError(f"{folder}: no features here; run `dvc repro extract` first")
        facts = read_json(folder / "meta.json")
        self.encoder_sha256: str = facts["encoder_sha256"]
        self.array: np.ndarray = np.load(folder / "features.npy", mmap_mode="r")

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.array.shape[1]
