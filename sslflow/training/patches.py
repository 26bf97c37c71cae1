"""Patches of images and volumes, and what is learnt of those that are hidden (arXiv:2111.06377)."""

from __future__ import annotations

from torch import Tensor


def patchify(whole: Tensor, patch: int) -> Tensor:
    """Images `(n, c, s, s)`, or volumes `(n, c, s, s, s)`, cut into patches, in the order of a ViT's: `(n, patches, c *
    patch²)`, or `patch³`."""
    axes, cut = whole.ndim - 2, whole
    for axis in reversed(range(2, whole.ndim)):
        cut = cut.unflatten(axis, (-1, patch))
    inside = range(3, cut.ndim, 2)
    return cut.permute(0, *range(2, cut.ndim, 2), 1, *inside).flatten(1 + axes).flatten(1, axes)


def unpatchify(patches: Tensor, patch: int, across: int, axes: int = 2) -> Tensor:
    """What `patchify` cut, `across` patches along each of so many axes."""
    laid = patches.unflatten(2, (-1, *(patch,) * axes)).unflatten(1, (across,) * axes)
    whole = laid.permute(0, 1 + axes, *(place for axis in range(axes) for place in (1 + axis, 2 + axes + axis)))
    for axis in reversed(range(2, 2 + axes)):
        whole = whole.flatten(2 * axis - 2, 2 * axis - 1)
    return whole


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
