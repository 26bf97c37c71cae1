"""Classifiers that must fail: whether a pair of picture and sound belongs together, told without comparing the two."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslflow.evaluation.intervals import interval
from sslflow.evaluation.linear import fit_linear

STRENGTHS = (0.1, 0.01, 0.001)
AT_MOST = 4000
"""Pairs to learn from."""


def told_by(
    train: Tensor, train_same: Tensor, test: Tensor, test_same: Tensor, groups: np.ndarray, seed: int
) -> dict[str, float]:
    """Accuracy, with its 95 % interval, of a linear classifier that sees only `train`, features `(n, dim)` of pairs,
    and learns from them whether they belong together, bool `(n,)`; on the pairs `test` `(m, dim)`, of which `groups`
    tells the sources, int `(m,)`.

    Features that are the same for all pairs give just one half: the answer is then always the same.
    """
    step = -(-len(train) // AT_MOST)
    fitted = fit_linear(train[::step].float(), train_same[::step].long(), 2, seed, regularisation=STRENGTHS)
    right = (fitted.predict(test.float()).bool() == test_same).cpu().numpy()
    low, high = interval(right, groups, seed)
    return {"accuracy": float(right.mean()), "low": low, "high": high}


def best_cut(scores: Tensor, same: Tensor) -> float:
    """The threshold above which most of the `scores` `(n,)` are of pairs that belong together, bool `(n,)`, and below
    which most are not: in the middle between two scores, or of the best of several such gaps."""
    order = scores.argsort()
    values, belongs = scores[order].double(), same[order].double()
    # With the cut before place k: those that belong from k on, and those that don't before it.
    right = torch.cat([belongs.flip(0).cumsum(0).flip(0), belongs.new_zeros(1)])
    right[1:] += (1 - belongs).cumsum(0)
    borders = torch.cat([values[:1] - 1, (values[1:] + values[:-1]) / 2, values[-1:] + 1])
    # Between equal scores there is no cut.
    right[1:-1][values[1:] == values[:-1]] = -1
    best = (right == right.max()).nonzero()[:, 0]
    return float(borders[best[len(best) // 2]])


def ranked(scores: Tensor, same: Tensor) -> float:
    """Area under the ROC curve: how often of two pairs, one that belongs together and one that does not, the right one
    scores higher; equal scores count one half. One half where a kind is missing."""
    right, wrong = scores[same], scores[~same].sort().values
    if not len(right) or not len(wrong):
        return 0.5
    below = torch.searchsorted(wrong, right, side="left").double()
    upto = torch.searchsorted(wrong, right, side="right").double()
    return float(((below + upto) / 2).mean() / len(wrong))
