"""An encoder and what makes the class of each pixel of its maps; in a file of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.formats import ImageFormat
from sslflow.dense.kept import load_as, save_as
from sslflow.networks.encoder import Encoder
from sslflow.networks.stages import Stages

KEY = "sslflow.segmenter"
"""In a file's metadata."""


class LinearPixels(nn.Module):
    """Maps of several sizes, finest first, to logits on the finest's places: each map normalised and brought to that
    size by bilinear interpolation, all of them stacked (hypercolumns, arXiv:1411.5752), and one linear layer.

    A linear layer and an interpolation may change places, so that each map has its part of the layer, and it is logits
    that are enlarged.
    """

    def __init__(self, dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim, affine=False) for dim in dims)
        self.layers = nn.ModuleList(nn.Conv2d(dim, classes, 1, bias=not i) for i, dim in enumerate(dims))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def normalise_by(self, sums: Sequence[Tensor]) -> None:
        """Normalise maps, which are frozen, by the mean and variance over all that are learnt from: of each size, `(3,
        dim)`, how many places there are, the sum of their values, and the sum of the squares."""
        for norm, (count, total, squares) in zip(self.norms, sums, strict=True):
            mean = total / count
            norm.running_mean.copy_(mean)  # pyright: ignore[reportCallIssue]
            norm.running_var.copy_((squares / count - mean.square()).clamp_min(0))  # pyright: ignore[reportCallIssue]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits `(n, classes, rows, columns)` of maps `(n, dim, rows, columns)` each."""
        parts = [layer(norm(found)) for norm, layer, found in zip(self.norms, self.layers, maps, strict=True)]
        finest, *rest = parts
        return sum((enlarged(part, finest.shape[-2:]) for part in rest), finest)


class PixelDecoder(nn.Module):
    """Maps of several sizes, finest first, to logits: from the coarsest to the finest, each enlarged by repeating
    pixels and joined by the next finer map, as in U-Net (arXiv:1505.04597), with one 3x3 convolution at each size; then
    doubled until logits have half the image's rows at least.

    `across`: rows of each map of an image of `side` pixels. `width`: channels throughout.
    """

    def __init__(self, dims: Sequence[int], across: Sequence[int], side: int, classes: int, *, width: int) -> None:
        super().__init__()
        # Encoders' maps differ in size by orders of magnitude, and no skip is to drown the others.
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim, affine=False) for dim in dims)
        *finer, coarsest = dims
        doublings = 0
        while 2 * across[0] * 2**doublings < side:
            doublings += 1
        self.blocks = nn.ModuleList(
            [_block(coarsest, width)]
            + [_block(width + dim, width) for dim in reversed(finer)]
            + [_block(width, width) for _ in range(doublings)]
        )
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits `(n, classes, rows, columns)` of maps `(n, dim, rows, columns)` each."""
        *finer, coarsest = (norm(found) for norm, found in zip(self.norms, maps, strict=True))
        first, *others = self.blocks
        x = first(coarsest)
        for block, skip in itertools.zip_longest(others, reversed(finer)):
            if skip is None:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            else:
                x = torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1)
            x = block(x)
        return self.last(x)


class Segmenter(nn.Module):
    """Normalised images `(n, channels, s, s)` to logits `(n, classes, s, s)`, of images as `format` has them."""

    def __init__(self, encoder: Encoder, classes: Sequence[str], format: ImageFormat, *, width: int = 0) -> None:
        """With a `width` of 0 one linear layer on the maps, else a decoder of that width. Raises `ValueError` for an
        encoder that makes no map."""
        super().__init__()
        self.stages = Stages(encoder)
        self.classes, self.format, self.width = list(classes), format, width
        self.facts: dict[str, Any] = {}
        """What else is known of it, plain values: how images' files were read, and how it was trained."""
        dims, across = self.stages.dims, self.stages.across
        self.decoder: LinearPixels | PixelDecoder = (
            PixelDecoder(dims, across, format.size, len(classes), width=width)
            if width
            else LinearPixels(dims, len(classes))
        )

    @property
    def encoder(self) -> Encoder:
        """What makes the maps."""
        return self.stages.encoder

    def forward(self, images: Tensor) -> Tensor:
        return enlarged(self.decoder(self.stages(images)), images.shape[-2:])


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps `(n, c, rows, columns)` of another size, by bilinear interpolation."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear")


def save_segmenter(model: Segmenter | None, file: Path) -> None:
    """Write it to a file, as `save_as` does."""
    save_as(KEY, model, file)


def load_segmenter(file: Path) -> Segmenter:
    """The one that `save_segmenter` wrote, on the CPU, in evaluation mode. Raises `ValueError` for any other file."""
    return load_as(KEY, Segmenter, "masks", file)


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
