"""How far scores of masks and boxes can be trusted, and how far one row is from another, over images and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from sslflow.evaluation.intervals import Interval, resampled

Score = Callable[[np.ndarray], np.ndarray]
"""A score of what one seed predicted on n test images: how often each image counts, `(draws, n)`, to its values
`(draws,)`; NaN where it isn't defined."""


def over(scores: Sequence[Score], groups: np.ndarray) -> Interval:
    """The mean of a row's scores, one for each seed, in [0, 1], and its 95 % interval for other images and seeds;
    images of one of the `groups` `(n,)` depend on one another. Of one seed it is for other images alone."""
    found = resampled(lambda times: np.stack([score(times) for score in scores], axis=1), groups)
    return Interval(found.mean, max(0.0, found.low), min(1.0, found.high))


def gap(ours: Sequence[Score], theirs: Sequence[Score], groups: np.ndarray) -> Interval:
    """By how much a row is above another, as `over`, seed by seed on the same images."""

    def differences(times: np.ndarray) -> np.ndarray:
        return np.stack([a(times) - b(times) for a, b in zip(ours, theirs, strict=True)], axis=1)

    return resampled(differences, groups)


def remembered(score: Score) -> Score:
    """The same score, which is worked out once for the same images: all intervals draw the same samples."""
    kept: dict[bytes, np.ndarray] = {}

    def again(times: np.ndarray) -> np.ndarray:
        key = hashlib.blake2b(np.ascontiguousarray(times).tobytes(), digest_size=16).digest()
        if key not in kept:
            kept[key] = score(times)
        return kept[key]

    return again


def class_ious(counts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, `(draws, classes)`; NaN of a class that is neither there nor predicted.

    `counts`, `(n, classes, 3)`: pixels of each image and class where prediction and truth agree on it, pixels that
    were predicted to be of it, and those that are; pixels to be ignored are left out of all three.
    """
    sums = (times @ counts.reshape(len(counts), -1)).reshape(len(times), -1, 3)
    union = sums[..., 1] + sums[..., 2] - sums[..., 0]
    return np.divide(sums[..., 0], union, out=np.full(union.shape, np.nan), where=union > 0)


def mean_iou(counts: np.ndarray) -> Score:
    """The mean over classes of `class_ious`: classes that are neither there nor predicted don't count."""

    def score(times: np.ndarray) -> np.ndarray:
        ious = class_ious(counts, times)
        defined = np.isfinite(ious)
        total, number = np.where(defined, ious, 0.0).sum(axis=1), defined.sum(axis=1)
        return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)

    return score
