"""Which labelled training images are used, where only some are to be: the same for everything that is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sslflow.data.dataset import Dataset
from sslflow.data.splits import TRAIN
from sslflow.runtime.rng import permutation


def labelled_subset(dataset: Dataset, fraction: float, seed: int) -> np.ndarray:
    """Rows of `fraction` of the labelled training images of every class, rounded, but one of each class at least. A
    smaller share is part of a larger one of the same seed."""
    return _subset(dataset, lambda own: _count(fraction, own), seed)


def some_of_each(dataset: Dataset, number: int, seed: int) -> np.ndarray:
    """Rows of so many labelled training images of every class, of smaller classes all, nested as `labelled_subset`."""
    return _subset(dataset, lambda own: min(number, own), seed)


def shares(dataset: Dataset, fractions: Sequence[float]) -> dict[float, float]:
    """Share of the labels that is really used → the first of the `fractions` that comes to it: of 100 labels of ten
    classes, 0.01 is 0.1, and so is 0.1. To two digits, and 1 for all labels only."""
    counts = np.unique(dataset.labels[dataset.labelled_rows(TRAIN)], return_counts=True)[1].tolist()
    found: dict[float, float] = {}
    for fraction in fractions:
        used = sum(_count(fraction, own) for own in counts) / sum(counts)
        found.setdefault(1.0 if used == 1 else min(float(f"{used:.2g}"), 0.99), fraction)
    return found


def _count(fraction: float, labels: int) -> int:
    """How many of a class's labels are used."""
    return max(1, round(fraction * labels))


def _subset(dataset: Dataset, count_of: Callable[[int], int], seed: int) -> np.ndarray:
    rows = dataset.labelled_rows(TRAIN)
    labels = dataset.labels[rows]
    chosen = []
    for label in np.unique(labels).tolist():
        own = rows[labels == label]
        order = permutation(len(own), seed, "labels", label).numpy()
        chosen.append(own[order[: count_of(len(own))]])
    return np.sort(np.concatenate(chosen))
