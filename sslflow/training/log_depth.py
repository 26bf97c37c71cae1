"""The error of a depth map in logarithms, of which the scale of a scene, which no single image tells, counts less."""

from __future__ import annotations

from torch import Tensor

from sslflow.runtime.device import full_precision


@full_precision
def scale_invariant(told: Tensor, true: Tensor, known: Tensor, invariance: float) -> Tensor:
    """Scale-invariant error of log depth `(n, 1, h, w)` (arXiv:1406.2283): scalar, a mean over images of mean(d²) − λ ·
    mean(d)², d the difference over the pixels that are `known` (1, else 0); 0 for an image of which nothing is.

    `invariance` is λ: with 0 an error that is the same for a whole image counts as any other, with 1 it is free.
    """
    count = known.sum(dim=(1, 2, 3)).clamp_min(1)
    difference = (told - true) * known
    squares = difference.square().sum(dim=(1, 2, 3)) / count
    return (squares - invariance * (difference.sum(dim=(1, 2, 3)) / count).square()).mean()
