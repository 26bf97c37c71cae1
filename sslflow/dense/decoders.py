"""What makes a value for each pixel, or voxel, of an encoder's maps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
"""By how many axes maps have: of images two, of volumes three."""


class LinearMaps(nn.Module):
    """Maps of several sizes, finest first, to logits on the finest's places: each map normalised and brought to that
    size by linear interpolation, all of them stacked (hypercolumns, arXiv:1411.5752), and one linear layer.

    A linear layer and an interpolation may change places, so that each map has its part of the layer, and it is logits
    that are enlarged.
    """

    def __init__(self, dims: Sequence[int], classes: int, *, axes: int = 2) -> None:
        super().__init__()
        self.norms = nn.ModuleList(NORM[axes](dim, affine=False) for dim in dims)
        self.layers = nn.ModuleList(CONVOLUTION[axes](dim, classes, 1, bias=not i) for i, dim in enumerate(dims))

    def normalise_by(self, sums: Sequence[Tensor]) -> None:
        """Normalise maps, which are frozen, by the mean and variance over all that are learnt from: of each size, `(3,
        dim)`, how many places there are, the sum of their values, and the sum of the squares."""
        for norm, (count, total, squares) in zip(self.norms, sums, strict=True):
            mean = total / count
            norm.running_mean.copy_(mean)  # pyright: ignore[reportCallIssue]
            norm.running_var.copy_((squares / count - mean.square()).clamp_min(0))  # pyright: ignore[reportCallIssue]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits `(n, classes, …)` of maps `(n, dim, …)` each."""
        parts = [layer(norm(found)) for norm, layer, found in zip(self.norms, self.layers, maps, strict=True)]
        finest, *rest = parts
        return sum((enlarged(part, finest.shape[2:]) for part in rest), finest)


class MapDecoder(nn.Module):
    """Maps of several sizes, finest first, to logits: from the coarsest to the finest, each enlarged by repeating
    places and joined by the next finer map, as in U-Net (arXiv:1505.04597; of volumes arXiv:1606.06650), with one
    convolution of three places along each axis at each size; then doubled until logits have half the image's places
    along an axis at least.

    `across`: places along an axis of each map of an image, or block, of `side`. `width`: channels throughout.
    """

    def __init__(
        self, dims: Sequence[int], across: Sequence[int], side: int, classes: int, *, width: int, axes: int = 2
    ) -> None:
        super().__init__()
        # Encoders' maps differ in size by orders of magnitude, and no skip is to drown the others.
        self.norms = nn.ModuleList(NORM[axes](dim, affine=False) for dim in dims)
        *finer, coarsest = dims
        doublings = 0
        while 2 * across[0] * 2**doublings < side:
            doublings += 1
        before = [coarsest, *(width + dim for dim in reversed(finer)), *[width] * doublings]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                CONVOLUTION[axes](dim, width, 3, padding=1, bias=False), NORM[axes](width), nn.ReLU(inplace=True)
            )
            for dim in before
        )
        self.last = CONVOLUTION[axes](width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits `(n, classes, …)` of maps `(n, dim, …)` each."""
        *finer, coarsest = (norm(found) for norm, found in zip(self.norms, maps, strict=True))
        first, *others = self.blocks
        x = first(coarsest)
        for block, skip in itertools.zip_longest(others, reversed(finer)):
            if skip is None:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            else:
                x = torch.cat([F.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], dim=1)
            x = block(x)
        return self.last(x)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps `(n, c, …)` of another size, by linear interpolation along each axis."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear" if maps.ndim == 4 else "trilinear")
