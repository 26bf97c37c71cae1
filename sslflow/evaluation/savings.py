"""How many labels one way needs to be as good as another is with fewer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLED = 400


@dataclass(frozen=True)
class Curve:
    """Which of the same `n` test images are got right with how many labels, from few to many."""

    labels: tuple[int, ...]
    right: tuple[np.ndarray, ...]
    """For each, `(seeds, draws, n)`."""


@dataclass(frozen=True)
class Needed:
    """So many labels, with the 95 % interval; infinite for more than there are."""

    labels: float
    low: float
    high: float


def needed(theirs: Curve, ours: Curve, place: int, groups: np.ndarray) -> Needed:
    """How many labels `theirs` needs to be as good as `ours` is with its number at `place`.

    Between two numbers of labels accuracy is taken to grow with the logarithm of their number, and never to fall; what
    is better than `ours` with its fewest labels needs no more than these. For the interval the seeds and draws of each,
    and the `groups`, int `(n,)`, of test images that both are asked about, are drawn again.
    """
    number = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(number).astype(np.float64)
    them, us = (_Sums(curve, number) for curve in (theirs, Curve(ours.labels[place:][:1], ours.right[place:][:1])))
    whole = np.ones(len(counts))
    found = _labels_for(theirs.labels, them.accuracies(whole, counts), us.accuracies(whole, counts)[0])
    draw = np.random.default_rng(0)
    samples = []
    for _ in range(RESAMPLED):
        weights = draw.multinomial(len(counts), whole / len(counts)).astype(np.float64)
        level = us.accuracies(weights, counts, draw)[0]
        samples.append(_labels_for(theirs.labels, them.accuracies(weights, counts, draw), level))
    samples.sort()
    # Of numbers of which some are infinite there is no weighted mean: the sample itself is taken.
    low, high = samples[round(0.025 * (RESAMPLED - 1))], samples[round(0.975 * (RESAMPLED - 1))]
    return Needed(found, min(low, found), max(high, found))


class _Sums:
    """Right answers by group: what drawing groups again needs."""

    def __init__(self, curve: Curve, number: np.ndarray) -> None:
        self.sums = [_by_group(right, number) for right in curve.right]

    def accuracies(
        self, weights: np.ndarray, counts: np.ndarray, draw: np.random.Generator | None = None
    ) -> list[float]:
        """For each number of labels; with other seeds and draws where there is something to `draw` by."""
        found = []
        for sums in self.sums:
            if draw:
                seeds, draws = (draw.integers(size, size=size) for size in sums.shape[:2])
                sums = sums[seeds][:, draws]
            found.append(float(sums.mean(axis=(0, 1)) @ weights / (weights @ counts)))
        return found


def _by_group(right: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Right answers `(seeds, draws, n)` to their sums, `(seeds, draws, groups)`."""
    sums = [np.bincount(number, weights=row) for row in right.reshape(-1, right.shape[-1])]
    return np.stack(sums).reshape(*right.shape[:2], -1)


def _labels_for(labels: tuple[int, ...], accuracies: list[float], level: float) -> float:
    place = next((place for place, accuracy in enumerate(accuracies) if accuracy >= level), None)
    if place is None:
        return float("inf")
    if place == 0:
        return float(labels[0])
    below, above = max(accuracies[:place]), accuracies[place]
    share = (level - below) / (above - below)
    return float(labels[place - 1] * (labels[place] / labels[place - 1]) ** share)
