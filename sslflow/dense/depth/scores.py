"""How well depth is known: the usual errors of a predicted map, image by image."""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 1.25
"""A pixel is right where neither of the two depths is so many times the other."""
ERRORS = ("abs_rel", "squared", "within", "log_variance")
"""Of an image, means over its known pixels: the difference as a share of the depth; the squared difference, in square
metres; whether a pixel is right; the variance of the difference of logarithms, which an error of scale leaves as it
is."""


def errors_of(told: Tensor, true: Tensor) -> Tensor:
    """The `ERRORS` of predicted depth, float64 `(n, 4)`, of depths in metres `(n, 1, h, w)`; in the true one 0 is not
    known. NaN for an image of which nothing is."""
    known = (true > 0).double()
    told, true = told.double().clamp_min(1e-6), torch.where(true > 0, true, 1.0).double()
    logs = told.log() - true.log()

    def mean(values: Tensor) -> Tensor:
        return (values * known).sum(dim=(1, 2, 3)) / known.sum(dim=(1, 2, 3))

    right = torch.maximum(told / true, true / told) < NEAR
    return torch.stack(
        [
            mean((told - true).abs() / true),
            mean((told - true).square()),
            mean(right.double()),
            (mean(logs.square()) - mean(logs).square()).clamp_min(0),
        ],
        dim=1,
    )
