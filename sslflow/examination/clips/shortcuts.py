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


def likely_from(scores: Tensor, same: Tensor) -> float:
    """The score from which on a pair rather belongs together than not, where a logistic regression of the `scores`
    `(n,)` on that, bool `(n,)`, with as many of either kind, says one half (Platt's calibration).

    Of few sources this changes less than the threshold that is right most often. The mean, where higher scores do not
    speak for belonging together.
    """
    from sklearn.linear_model import LogisticRegression  # a second to load, which no check of settings needs

    values = scores.double().cpu().numpy()
    middle, spread = values.mean(), values.std() or 1.0
    fitted = LogisticRegression(C=1e3).fit((values[:, None] - middle) / spread, same.cpu().numpy())
    slope = fitted.coef_[0, 0]
    return float(middle - spread * fitted.intercept_[0] / slope if slope > 0 else middle)


def ranked(scores: Tensor, same: Tensor) -> float:
    """Area under the ROC curve: how often of two pairs, one that belongs together and one that does not, the right one
    scores higher; equal scores count one half. One half where a kind is missing."""
    right, wrong = scores[same], scores[~same].sort().values
    if not len(right) or not len(wrong):
        return 0.5
    below = torch.searchsorted(wrong, right, side="left").double()
    upto = torch.searchsorted(wrong, right, side="right").double()
    return float(((below + upto) / 2).mean() / len(wrong))
