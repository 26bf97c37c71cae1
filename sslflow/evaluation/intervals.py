"""How far a share of right answers can be trusted, where answers about one source are no independent ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    """The mean of `values` `(seeds, n)`, each seed asked about the same `n` things, and its 95 % interval for other
    seeds and other things alike. Things of one of the `groups`, int `(n,)`, depend on one another.

    The variances of the mean over seeds and over groups are added, which counts what is particular to one seed and
    group twice, and t's quantile for their degrees of freedom together (Satterthwaite) is taken, so that two seeds or
    five groups don't look sure. With one seed the interval is for other things alone; with one group it is for other
    things of that group, each on its own.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    of_seeds = float(values.mean(axis=1).var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    own = values.mean(axis=0) - mean
    sums = _by_group(own, groups)[0]
    sums = sums if len(sums) > 1 else own
    of_groups = float((sums**2).sum()) / values.shape[1] ** 2 * len(sums) / max(1, len(sums) - 1)
    variance = of_seeds + of_groups
    if not variance:
        return Interval(mean, mean, mean)
    from scipy.special import stdtrit  # half a second to load, which no check of settings needs

    freedom = variance**2 / (of_seeds**2 / max(1, len(values) - 1) + of_groups**2 / max(1, len(sums) - 1))
    half = float(stdtrit(freedom, 0.975)) * variance**0.5
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
    found = crossed(right[None], groups)
    alone = wilson(float(right.mean()), len(right))
    return min(max(0.0, found.low), alone[0]), max(min(1.0, found.high), alone[1])


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
