"""Images whose brightness is how near everything is, with depth maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sslflow.data.dataset import Dataset
from sslflow.runtime.files import read_json, write_json
from tests.conftest import write_dataset

SIDE = 32


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `(count, 3, SIDE, SIDE)`, and depth float32 `(count, 1, SIDE, SIDE)`: a slope and a square before it, some
    pixels not known."""
    numbers = np.random.default_rng(seed)
    slope = np.linspace(6, 3, SIDE)[:, None] * np.ones(SIDE)
    depth = np.repeat(slope[None, None], count, axis=0)
    for one in depth:
        y, x = numbers.integers(0, SIDE - 12, 2)
        one[0, y : y + 12, x : x + 12] = numbers.uniform(1, 3)
    images = np.clip(280 / depth + numbers.normal(0, 6, (count, 3, SIDE, SIDE)), 0, 255).astype(np.uint8)
    depth[:, :, :, :2] = 0
    return images, depth.astype(np.float32)


def deep_dataset(folder: Path, train: int = 24, test: int = 8, without: int = 0) -> Dataset:
    """A prepared set of such images without classes, the first of which have no depth map."""
    images, depth = drawn(train + test)
    depth[:without] = 0
    write_dataset(folder, images, np.full(len(images), -1), ["train"] * train + ["test"] * test)
    np.save(folder / "depth-00000.npy", depth)
    known = (depth > 0).mean(axis=(1, 2, 3)).astype(np.float32)
    table = pq.read_table(folder / "manifest.parquet").append_column("depth", pa.array(known))
    table = table.append_column("sha256", pa.array([f"{row:064}" for row in range(len(images))]))
    pq.write_table(table, folder / "manifest.parquet")
    logs = np.log(depth[:train][depth[:train] > 0])
    facts = {"unit": "m", "mean_log": float(logs.mean()), "std_log": float(logs.std()), "known": float(known.mean())}
    file = folder / "dataset.json"
    write_json(file, {**read_json(file), "beside": {"depth": facts}})
    return Dataset(folder)
