"""What many tests share: one thread, and a few real images as `prepare` writes them."""

from __future__ import annotations

import gzip
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat, described
from sslflow.runtime.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "full.yaml"
"""Complete settings, for every method; params.yaml is the user's, and no test reads it."""
SAMPLE = ROOT / "data" / "samples" / "fashion"

# A shell starts background jobs with Ctrl-C ignored, and they hand that on to their children: tests that send one would
# pass or fail by how pytest was started.
signal.signal(signal.SIGINT, signal.default_int_handler)


SLOW_FIRST = ("tests/pipelines/", "tests/stages/", "tests/methods/")
"""Files that take long are begun first, so that no process waits for one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow folders first; the order within them, and of all others, stays."""

    def rank(item: pytest.Item) -> int:
        return next((place for place, folder in enumerate(SLOW_FIRST) if item.nodeid.startswith(folder)), 9)

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def copy_kept_folders(folder: Path) -> None:
    """Into a copy of the project the folders of results that Git keeps though nothing may ever be written there."""
    for pattern in ("artifacts/*/.gitkeep", "artifacts/metrics/*/.gitkeep"):
        for kept in ROOT.glob(pattern):
            place = folder / kept.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()


def first_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first training images of the sample fashion, uint8 `(count, 1, 28, 28)`, and their labels."""
    images = gzip.decompress((SAMPLE / "train-images-idx3-ubyte.gz").read_bytes())[16 : 16 + count * 784]
    labels = gzip.decompress((SAMPLE / "train-labels-idx1-ubyte.gz").read_bytes())[8 : 8 + count]
    return (
        np.frombuffer(images, np.uint8).reshape(-1, 1, 28, 28).copy(),
        np.frombuffer(labels, np.uint8).astype(np.int64),
    )


@pytest.fixture(scope="session")
def fashion() -> tuple[np.ndarray, np.ndarray]:
    """The first 512 training images of the sample, uint8 `(512, 1, 28, 28)`, and their labels."""
    return first_images(512)


def write_dataset(folder: Path, images: np.ndarray, labels: np.ndarray, splits: list[str], shard: int = 50) -> Dataset:
    """Prepared images in `folder`, in several shards, so that reading across their borders is always part of a test."""
    folder.mkdir(parents=True)
    rows = np.arange(len(images))
    for number in range(-(-len(images) // shard)):
        np.save(folder / f"images-{number:05d}.npy", images[number * shard : (number + 1) * shard])
    names = [f"{row}.png" for row in rows]
    columns = {
        "row": rows,
        "shard": rows // shard,
        "index": rows % shard,
        "path": names,
        "split": splits,
        "label": labels,
        "group": names,
        "width": np.full(len(images), images.shape[3]),
        "height": np.full(len(images), images.shape[2]),
    }
    pq.write_table(pa.table(columns), folder / "manifest.parquet")
    mean, std = (tuple((measured(axis=(0, 2, 3)) / 255).tolist()) for measured in (images.mean, images.std))
    form = ImageFormat(images.shape[1], images.shape[2], mean, std)
    write_json(folder / "dataset.json", described(form, [f"class {label}" for label in range(labels.max() + 1)]))
    return Dataset(folder)


@pytest.fixture
def dataset(tmp_path, fashion) -> Dataset:
    """160 labelled real images: 120 to train on, 40 to test on."""
    images, labels = fashion
    return write_dataset(tmp_path / "data/prepared", images[:160], labels[:160], ["train"] * 120 + ["test"] * 40)
