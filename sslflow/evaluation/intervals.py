"""How far a share of right answers can be trusted, where answers about one source are no independent ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 300
"""Samples of a bootstrap: the error of its standard error is 4 %."""
CHUNK = 4_000_000
"""Numbers that a bootstrap holds at a time."""
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def crossed(values: np.ndarray, groups: np.ndarray) -> Interval:
    """The mean of `values` `(…, n)`, each seed, or draw, or pair of both, asked about the same `n` things, and its 95 %
    interval for other seeds, draws and things alike. Things of one of the `groups`, int `(n,)`, depend on one another.

    The variances of the mean over each axis and over groups are added, which counts what is particular to one seed and
    group twice, and t's quantile for their degrees of freedom together (Satterthwaite) is taken; the interval is never
    shorter than that of one of the parts alone, so that two seeds or five groups don't look sure. An axis of one tells
    nothing of others alike; with one group the interval is for other things of that group, each on its own. Where all
    values are the same, it is as wide as Wilson's for answers that are all right: ten of ten are not sure to be
    followed by another.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    parts = []
    for axis in range(values.ndim - 1):
        if (size := values.shape[axis]) > 1:
            means = np.moveaxis(values, axis, 0).reshape(size, -1).mean(axis=1)
            parts.append((float(means.var(ddof=1)) / size, size - 1))
    own = values.reshape(-1, values.shape[-1]).mean(axis=0) - mean
    sums = _by_group(own, groups)[0]
    sums = sums if len(sums) > 1 else own
    freedom = max(1, len(sums) - 1)
    parts.append((float((sums**2).sum()) / len(own) ** 2 * len(sums) / freedom, freedom))
    return _together(mean, parts, len(sums))


def of_share(values: np.ndarray, groups: np.ndarray) -> Interval:
    """`crossed` of values in [0, 1], whose interval ends there."""
    found = crossed(values, groups)
    return Interval(found.mean, max(0.0, found.low), min(1.0, found.high))


def resampled(
    statistic: Callable[[np.ndarray], np.ndarray], groups: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """As `crossed`, for a statistic that is no mean, or for the difference of two: its mean over seeds, and its 95 %
    interval for other seeds and things alike.

    `statistic` takes how often each of the things counts, `(draws, n)`, and gives its value for each seed, `(draws,
    seeds)`; a sample for which it isn't defined, NaN, is left out. Things of one of the `groups`, int `(n,)`, are drawn
    together, with replacement; seeds, of which there are few, aren't drawn: their variance is that of their values.
    """
    number = np.unique(groups, return_inverse=True)[1]
    number = number if number.max(initial=0) else np.arange(len(groups))
    count = int(number.max(initial=0)) + 1
    every = np.asarray(statistic(np.ones((1, len(groups)))), dtype=np.float64)[0]
    numbers, means = np.random.default_rng(seed), []
    for size in _chunks(draws, max(1, CHUNK // len(groups))):
        taken = numbers.multinomial(count, np.full(count, 1 / count), size=size)
        means.append(np.asarray(statistic(taken[:, number].astype(np.float64))).mean(axis=1))
    means = np.concatenate(means)
    means = means[np.isfinite(means)]
    parts = [(float(means.var(ddof=1)) * count / max(1, count - 1) if len(means) > 1 else 0.0, max(1, count - 1))]
    if len(every) > 1:
        parts.append((float(every.var(ddof=1)) / len(every), len(every) - 1))
    return _together(float(every.mean()), parts, count)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _together(mean: float, parts: Sequence[tuple[float, int]], things: int) -> Interval:
    """The interval around a mean whose variances, each with its degrees of freedom, are added; where there are none,
    as far as Wilson's is from 1 for so many `things` that are all right."""
    variance = sum(part for part, _ in parts)
    if not variance:
        half = 1 - wilson(1.0, things)[0]
        return Interval(mean, mean - half, mean + half)
    from scipy.special import stdtrit  # half a second to load, which no check of settings needs

    together = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    half = max(float(stdtrit(freedom, 0.975)) * part**0.5 for part, freedom in [*parts, (variance, together)])
    return Interval(mean, mean - half, mean + half)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent answers."""
    if not count:
        return 0.0, 1.0
    middle = share + Z95**2 / (2 * count)
    half = Z95 * (share * (1 - share) / count + Z95**2 / (4 * count**2)) ** 0.5
    below, above = (middle - half) / (1 + Z95**2 / count), (middle + half) / (1 + Z95**2 / count)
    # At 0 and 1 the formula gives just these, but for rounding.
    return min(max(0.0, below), share), max(min(1.0, above), share)


def interval(right: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of `right`, bool or shares `(n,)`, n ≥ 1, in which answers of one of the `groups`, int
    `(n,)`, depend on one another.

    Each end is at the least as far out as Wilson's, which takes answers for independent: few groups, or answers that
    are all right, would look too sure.
    """
    right = np.asarray(right, dtype=np.float64)
    found = of_share(right[None], groups)
    alone = wilson(float(right.mean()), len(right))
    return min(found.low, alone[0]), max(found.high, alone[1])


def standard_error(right: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the mean of `right`, as for `interval`; at the least that of independent answers, with one more
    of either kind."""
    right = np.asarray(right, dtype=np.float64)
    sums = _by_group(right - right.mean(), groups)[0]
    clustered = float(np.sqrt((sums**2).sum())) / len(right)
    if len(sums) > 1:
        clustered *= (len(sums) / (len(sums) - 1)) ** 0.5
    share = (right.sum() + 1) / (len(right) + 2)
    return max(clustered, float(share * (1 - share) / len(right)) ** 0.5)


def _by_group(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each group."""
    number = np.unique(groups, return_inverse=True)[1]
    return np.bincount(number, weights=values), np.bincount(number)
