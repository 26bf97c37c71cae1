"""What is learnt of patches that are hidden, whatever they are of (arXiv:2111.06377)."""

from __future__ import annotations

from torch import Tensor


def standardise(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches `(n, patches, pixels)` less their own mean, by their own standard deviation; both `(n, patches, 1)`.

    The variance is the unbiased one, 1e-6 is added to it, as in the authors' code.
    """
    mean = patches.mean(dim=2, keepdim=True)
    deviation = (patches.var(dim=2, keepdim=True) + 1e-6).sqrt()
    return (patches - mean) / deviation, mean, deviation


def hidden_error(drawn: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared difference of `drawn` and `target`, both `(n, patches, pixels)`, over the patches that `hidden`,
    int64 `(n, k)`, counts: scalar."""
    error = (drawn.float() - target.float()).square().mean(dim=2)
    return error.gather(1, hidden).mean()
