"""Which annotated images are learnt from: the same for everything that is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST, TRAIN
from sslflow.runtime.rng import permutation

FEWEST = 2
"""Images that are learnt from at least: normalisation over a batch needs more than one."""


def lacking(dataset: Dataset, kind: str) -> str:
    """Why nothing can be learnt or tested, in words; empty where images of both splits have been annotated with `mask`,
    `boxes` or `depth`."""
    without = [split for split in (TRAIN, TEST) if not len(dataset.annotated_rows(split, kind))]
    what = "masks" if kind == "mask" else kind
    return f"there are no images with {what} to {' and to '.join(without)} on" if without else ""


def annotated_subset(dataset: Dataset, kind: str, fraction: float, seed: int) -> np.ndarray:
    """Rows of a `fraction` of the training images that have been annotated with `mask`, `boxes` or `depth`, in
    manifest order, two at least where there are two. A smaller share is part of a larger one of the same seed. Which
    classes are in them is up to chance, as it is for who annotates a part of their images."""
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


def tell_left_out(what: str, fractions: Sequence[float], shares: Mapping[float, float]) -> None:
    """Print the fractions that `annotated_shares` leaves out."""
    for fraction in set(fractions).difference(shares.values()):
        print(f"{what}  {100 * fraction:g} % of the images would be the same as another share: left out")


def _count(fraction: float, images: int) -> int:
    return min(images, max(FEWEST, round(fraction * images)))
