"""Which annotated images are learnt from: the same for everything that is compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslflow.data.dataset import Dataset
from sslflow.data.splits import TRAIN
from sslflow.runtime.rng import permutation

FEWEST = 2
"""Images that are learnt from at least: normalisation over a batch needs more than one."""


def annotated_subset(dataset: Dataset, kind: str, fraction: float, seed: int) -> np.ndarray:
    """Rows of a `fraction` of the training images that have been annotated with `mask` or `boxes`, in manifest order,
    two at least where there are two. A smaller share is part of a larger one of the same seed. Which classes are in
    them is up to chance, as it is for who annotates a part of their images."""
    rows = dataset.annotated_rows(TRAIN, kind)
    order = permutation(len(rows), seed, "annotated").numpy()
    return np.sort(rows[order[: _count(fraction, len(rows))]])


def annotated_shares(dataset: Dataset, kind: str, fractions: Sequence[float]) -> dict[float, float]:
    """Share of the annotated training images that is really used, to two digits, 1 for all of them only → the first of
    the `fractions` that comes to it."""
    count = len(dataset.annotated_rows(TRAIN, kind))
    found: dict[float, float] = {}
    for fraction in fractions:
        used = _count(fraction, count) / count
        found.setdefault(1.0 if used == 1 else min(float(f"{used:.2g}"), 0.99), fraction)
    return found


def _count(fraction: float, images: int) -> int:
    return min(images, max(FEWEST, round(fraction * images)))
