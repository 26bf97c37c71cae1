"""How far a share of right answers can be trusted, where answers about one source are no independent ones."""

from __future__ import annotations

import numpy as np

from sslflow.runtime.rng import derive

Z95 = 1.959963984540054
RESAMPLED = 1000


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent answers."""
    if not count:
        return 0.0, 1.0
    middle = share + Z95**2 / (2 * count)
    half = Z95 * (share * (1 - share) / count + Z95**2 / (4 * count**2)) ** 0.5
    below, above = (middle - half) / (1 + Z95**2 / count), (middle + half) / (1 + Z95**2 / count)
    # At 0 and 1 the formula gives just these, but for rounding.
    return min(max(0.0, below), share), max(min(1.0, above), share)


def interval(right: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `right`, bool or shares `(n,)`, n ≥ 1, in which answers of one of the `groups`, int
    `(n,)`, depend on one another: whole groups are drawn again, a thousand times.

    Each end is at the least as far out as Wilson's, which takes answers for independent: few groups, or answers that
    are all right, would look too sure.
    """
    right = np.asarray(right, dtype=np.float64)
    sums, counts = _by_group(right, groups)
    numbers = np.random.default_rng(derive(seed, "interval"))
    drawn = numbers.integers(len(sums), size=(RESAMPLED, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    alone = wilson(float(right.mean()), len(right))
    return min(float(low), alone[0]), max(float(high), alone[1])


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
