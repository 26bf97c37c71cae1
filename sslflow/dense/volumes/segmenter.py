"""An encoder of volumes and what makes the class of each voxel of its maps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.volumes import VolumeEncoder


class LinearVoxels(nn.Module):
    """Maps of several sizes, finest first, to logits on the finest's places: each normalised over the batch, one linear
    layer on all of them together, enlarged trilinearly (hypercolumns, arXiv:1411.5752)."""

    def __init__(self, dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm3d(dim, affine=False) for dim in dims)
        self.layers = nn.ModuleList(nn.Conv3d(dim, classes, 1, bias=not place) for place, dim in enumerate(dims))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits `(n, classes, …)` of maps `(n, dim, …)` each."""
        finest, *rest = (layer(norm(found)) for norm, layer, found in zip(self.norms, self.layers, maps, strict=True))
        return sum((enlarged(part, finest.shape[2:]) for part in rest), finest)


class VoxelDecoder(nn.Module):
    """Maps of several sizes, finest first, to logits: from the coarsest to the finest, each enlarged by repeating
    voxels and joined by the next finer map, as in 3-D U-Net (arXiv:1606.06650), with one 3x3x3 convolution at each
    size; then doubled until logits have half the block's voxels along an axis at least.

    `across`: voxels along an axis of each map of a block of `side`. `width`: channels throughout.
    """

    def __init__(self, dims: Sequence[int], across: Sequence[int], side: int, classes: int, *, width: int) -> None:
        super().__init__()
        # Encoders' maps differ in size by orders of magnitude, and no skip is to drown the others.
        self.norms = nn.ModuleList(nn.BatchNorm3d(dim, affine=False) for dim in dims)
        *finer, coarsest = dims
        doublings = 0
        while 2 * across[0] * 2**doublings < side:
            doublings += 1
        self.blocks = nn.ModuleList(
            [_block(coarsest, width)]
            + [_block(width + dim, width) for dim in reversed(finer)]
            + [_block(width, width) for _ in range(doublings)]
        )
        self.last = nn.Conv3d(width, classes, 1)

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


class VolumeSegmenter(nn.Module):
    """Normalised volumes `(n, channels, s, s, s)` to logits `(n, classes, s, s, s)`."""

    def __init__(self, encoder: VolumeEncoder, classes: int, *, width: int) -> None:
        """With a `width` of 0 one linear layer on the maps, else a decoder of that width."""
        super().__init__()
        self.encoder = encoder
        training = encoder.training
        with torch.no_grad():
            maps = encoder.eval().maps(torch.zeros(1, encoder.channels, *(encoder.side,) * 3))
        encoder.train(training)
        across = [found.shape[-1] for found in maps]
        self.decoder: LinearVoxels | VoxelDecoder = (
            VoxelDecoder(encoder.dims, across, encoder.side, classes, width=width)
            if width
            else LinearVoxels(encoder.dims, classes)
        )

    def forward(self, volumes: Tensor) -> Tensor:
        return enlarged(self.decoder(self.encoder.maps(volumes)), volumes.shape[2:])


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps `(n, c, …)` of another size, by trilinear interpolation."""
    return F.interpolate(maps, size=tuple(size), mode="trilinear")


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, after, 3, padding=1, bias=False), nn.BatchNorm3d(after), nn.ReLU(inplace=True)
    )
