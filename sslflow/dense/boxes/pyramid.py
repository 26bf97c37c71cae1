"""An encoder's maps as a pyramid: maps of one width, of sizes that depend on the image's alone."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from sslflow.networks.encoder import Encoder
from sslflow.networks.stages import Stages


class Pyramid(nn.Module):
    """Images to maps of `out_channels`, the finest first, whose cells are 4, 8, 16, … pixels wide (from 8 on, where
    images are larger than 128), as long as there are two cells across: the same for all encoders.

    For each level the coarsest map of the encoder that is no coarser than the level, or else its finest, is brought to
    the level's size; a feature pyramid network (arXiv:1612.03144) takes them from there. It normalises over groups of
    channels, so that one learning rate suits encoders whose maps differ in size. A ViT's one map serves all levels,
    smaller and larger, as in ViTDet's simple pyramid (arXiv:2203.16527).
    """

    def __init__(self, encoder: Encoder, width: int) -> None:
        """Raises `ValueError` for the few networks that make no map."""
        super().__init__()
        self.stages = Stages(encoder)
        stride = 4 if encoder.image_size <= 128 else 8
        sides = [-(-encoder.image_size // (stride * 2**level)) for level in range(8)]
        self.sides = [side for side in sides if side >= 2] or [2]
        """Rows of each level, and columns."""
        finer = [[i for i, side in enumerate(self.stages.across) if side >= wanted] for wanted in self.sides]
        self.sources = [found[-1] if found else 0 for found in finer]
        self.out_channels = width
        dims = [self.stages.dims[i] for i in self.sources]
        self.together = FeaturePyramidNetwork(dims, width, norm_layer=partial(nn.GroupNorm, groups_of(width)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps `(n, width, side, side)` of normalised images, by the levels' numbers, as torchvision wants them."""
        maps = self.stages(images)
        levels = zip(self.sources, self.sides, strict=True)
        return self.together({str(i): _brought(maps[source], side) for i, (source, side) in enumerate(levels)})


def groups_of(width: int) -> int:
    """Groups of channels that are normalised together: of eight each, or a single one where that doesn't go."""
    return width // 8 if width % 8 == 0 else 1


def _brought(found: Tensor, side: int) -> Tensor:
    if found.shape[-1] == side:
        return found
    if found.shape[-1] > side:
        return F.adaptive_avg_pool2d(found, side)
    return F.interpolate(found, size=(side, side), mode="bilinear", align_corners=False)
