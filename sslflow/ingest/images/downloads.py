"""Data sets that torchvision can download, kept in `work/downloads`. Imported only when such a source is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets

from sslflow import paths
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN, Split
from sslflow.ingest.records import Record, Source
from sslflow.settings.params import closest

FOLDER = paths.WORK / "downloads"

Part = tuple[Split, np.ndarray, np.ndarray | None]
"""Split, uint8 images `(n, height, width)` or `(n, height, width, 3)`, labels `(n,)`."""


def torchvision_source(name: str) -> Source:
    """The data set that torchvision calls `name`, its own test part as the test split.

    Raises `ValueError` where it can't be had.
    """
    if name not in _LOADERS:
        raise ValueError(f"there is no source 'torchvision:{name}'{closest(name, _LOADERS)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        classes, parts = _LOADERS[name](name, FOLDER)
    except Exception as error:  # torchvision's readers fail in many ways at a file that was cut
        words = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"torchvision:{name} could not be downloaded to {FOLDER}, or its files in {_place(name)} are damaged "
            f"({words}): delete them to have them downloaded again; without a network, put whole ones there, or use "
            "another source"
        ) from None

    def records() -> Iterator[Record]:
        for split, images, labels in parts:
            for row, pixels in enumerate(images):
                label = NO_LABEL if labels is None else int(labels[row])
                yield Record(f"{split}/{row:07d}", split, np.ascontiguousarray(pixels), label)

    return Source(tuple(classes), records)


def _place(name: str) -> Path:
    """The folder that torchvision keeps a data set in, as far as it has one of its own."""
    folder = FOLDER / name
    return folder if folder.is_dir() else FOLDER


def _by_train_flag(name: str, folder: Path) -> tuple[list[str], list[Part]]:
    kind = getattr(torchvision.datasets, name)
    sets: dict[Split, Any] = {split: kind(folder, train=split == TRAIN, download=True) for split in (TEST, TRAIN)}
    parts: list[Part] = [(split, np.asarray(one.data), np.asarray(one.targets)) for split, one in sets.items()]
    return sets[TEST].classes, parts


def _svhn(_: str, folder: Path) -> tuple[list[str], list[Part]]:
    kind = torchvision.datasets.SVHN
    sets: dict[Split, Any] = {split: kind(folder / "SVHN", split, download=True) for split in (TEST, TRAIN)}
    parts: list[Part] = [(split, one.data.transpose(0, 2, 3, 1), one.labels) for split, one in sets.items()]
    return [str(digit) for digit in range(10)], parts


def _stl10(_: str, folder: Path) -> tuple[list[str], list[Part]]:
    """Its 100,000 images without labels are the pool; read from the disk as they are needed, since they are 2.7 GB."""
    test = torchvision.datasets.STL10(str(folder), "test", download=True)
    inside = folder / test.base_folder
    parts: list[Part] = [
        (TEST, _planes(inside / "test_X.bin"), np.fromfile(inside / "test_y.bin", np.uint8) - 1),
        (TRAIN, _planes(inside / "train_X.bin"), np.fromfile(inside / "train_y.bin", np.uint8) - 1),
        (POOL, _planes(inside / "unlabeled_X.bin"), None),
    ]
    return test.classes, parts


def _planes(file: Path) -> np.ndarray:
    shape = (3, 96, 96)
    flat = np.memmap(file, np.uint8, mode="r")
    return flat.reshape(len(flat) // math.prod(shape), *shape).transpose(0, 3, 2, 1)


_LOADERS: dict[str, Callable[[str, Path], tuple[list[str], list[Part]]]] = {
    **dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100"), _by_train_flag),
    "SVHN": _svhn,
    "STL10": _stl10,
}
