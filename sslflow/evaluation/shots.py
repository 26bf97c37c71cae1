"""Accuracy where classes to train on differ in size: of large, middling and small ones apart, classes alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sslflow.evaluation.intervals import Interval, crossed, wilson

GROUPS = ("many", "medium", "few")
MANY, FEW = 100, 20
"""The field's bounds: more than `MANY` images to train on, fewer than `FEW` (Liu and others, arXiv:1904.05160)."""
ENOUGH = 30
"""Classes from which on those bounds are used; of fewer, a group would often be one class, or none."""


def shots(sizes: Mapping[int, int]) -> dict[str, list[int]]:
    """The classes of each of the `GROUPS`, by their number of images to train on: by the field's bounds where there are
    `ENOUGH` classes and some in each group, else by thirds of the classes. Classes of one size are in one group; groups
    without a class, and classes without an image, are left out."""
    counts = {label: size for label, size in sizes.items() if size > 0}
    found = _by_bounds(counts) if len(counts) >= ENOUGH else {}
    if not all(found.get(name) for name in GROUPS):
        found = _by_thirds(counts)
    return {name: found[name] for name in GROUPS if found.get(name)}


def _by_bounds(counts: Mapping[int, int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in GROUPS}
    for label, size in counts.items():
        found["many" if size > MANY else "few" if size < FEW else "medium"].append(label)
    return found


def _by_thirds(counts: Mapping[int, int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in GROUPS}
    for label, size in counts.items():
        # Twice the middle of the places that classes of this size take, from the largest.
        place = 2 * sum(other > size for other in counts.values()) + sum(other == size for other in counts.values())
        found["many" if 3 * place <= 2 * len(counts) else "few" if 3 * place >= 4 * len(counts) else "medium"].append(
            label
        )
    return found


def class_weights(actual: np.ndarray, classes: list[int]) -> np.ndarray:
    """Of each test image, float `(n,)` with mean 1: such that a mean over images is one over the classes named, each of
    which counts the same; 0 for other classes. `actual`: int `(n,)`. Raises `ValueError` where none has an image."""
    weights = np.zeros(len(actual))
    present = [label for label in classes if (actual == label).any()]
    if not present:
        raise ValueError("none of the classes has a test image")
    for label in present:
        own = actual == label
        weights[own] = len(actual) / (len(present) * own.sum())
    return weights


def linear_terms(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values `(…, n)` whose plain mean is the weighted one, and which differ from it by what each thing adds to its
    chance: for `crossed`."""
    mean = (values * weights).mean(axis=-1, keepdims=True)
    return mean + weights * (values - mean)


def over_classes(right: np.ndarray, actual: np.ndarray, groups: np.ndarray, classes: list[int]) -> Interval:
    """Accuracy, mean over classes, of right answers `(…, n)`, and its 95 % interval over seeds and test images; at the
    least as wide as Wilson's for as many independent answers as the weights leave. Raises as `class_weights`."""
    weights = class_weights(actual, classes)
    found = crossed(linear_terms(np.asarray(right, dtype=np.float64), weights), groups)
    low, high = wilson(min(max(found.mean, 0.0), 1.0), _independent(weights))
    return Interval(found.mean, max(0.0, min(found.low, low)), min(1.0, max(found.high, high)))


def gap_over_classes(values: np.ndarray, actual: np.ndarray, groups: np.ndarray, classes: list[int]) -> Interval:
    """The same of differences between right answers, in pairs, `(…, n)`; where those of the classes are all the same,
    it is as wide as Wilson's for as many answers as the weights leave, all of them right."""
    weights = class_weights(actual, classes)
    values = np.asarray(values, dtype=np.float64)
    found = crossed(linear_terms(values, weights), groups)
    if np.ptp(values[..., weights > 0]):
        return found
    half = 1 - wilson(1.0, _independent(weights))[0]
    return Interval(found.mean, found.mean - half, found.mean + half)


def _independent(weights: np.ndarray) -> int:
    """As many independent answers are as sure as those with these weights."""
    return round(weights.sum() ** 2 / (weights**2).sum())


def spread_terms(right: np.ndarray, actual: np.ndarray, classes: list[int]) -> np.ndarray:
    """Of right answers `(…, n)`: values whose plain mean is the standard deviation of the classes' accuracies.

    It is 0 where features tell all classes equally well, which Kang and others (ICLR 2021) call a balanced feature
    space; of classes with few test images it is too large by what these leave to chance."""
    right = np.asarray(right, dtype=np.float64)
    present = [label for label in classes if (actual == label).any()]
    each = np.stack([right[..., actual == label].mean(axis=-1) for label in present], axis=-1)
    spread = each.std(axis=-1)
    terms = np.broadcast_to(spread[..., None], right.shape).copy()
    above = (each - each.mean(axis=-1, keepdims=True)) / np.where(spread > 0, spread, np.inf)[..., None]
    for place, label in enumerate(present):
        own = actual == label
        share = above[..., place, None] / len(present) * len(actual) / own.sum()
        terms[..., own] += share * (right[..., own] - each[..., place, None])
    return terms
