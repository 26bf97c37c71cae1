"""Rectangles of an image, drawn by chance: what of it is hidden, or asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.settings.params import Count, Fraction
from sslflow.views.images import MultiCrop
from sslflow.views.strengths import Blur, Colour, Crop, Local, Second

ASPECT = 0.3, 1 / 0.3
"""Height over width of what is hidden, as in BEiT (arXiv:2106.08254)."""


def draw_blocks(
    images: int, blocks: int, area: Tensor, aspect: tuple[float, float], device: torch.device | None = None
) -> Tensor:
    """Rectangles anywhere in images, `(images, blocks, 4)`: top, left, bottom and right, as shares of the side. `area`:
    their shares of the image's area, of a shape that broadcasts to `(images, blocks)`; `aspect`: the least and the
    largest height over width, between which logarithms are equally likely."""
    low, high = map(math.log, aspect)
    shape = torch.empty(images, blocks, device=device).uniform_(low, high).exp()
    heights, widths = (area * shape).sqrt().clamp(max=1.0), (area / shape).sqrt().clamp(max=1.0)
    free = torch.rand(2, images, blocks, device=device)
    top, left = free[0] * (1 - heights), free[1] * (1 - widths)
    return torch.stack([top, left, top + heights, left + widths], dim=2)


def inside(blocks: Tensor, across: int) -> Tensor:
    """Which of an image's `across`² patches have their middle in each of the blocks `(n, blocks, 4)`: bool
    `(n, blocks, patches)`, row by row."""
    middles = (torch.arange(across, device=blocks.device) + 0.5) / across
    top, left, bottom, right = blocks[..., None].unbind(dim=2)
    rows, columns = (top <= middles) & (middles < bottom), (left <= middles) & (middles < right)
    return (rows[..., None] & columns[..., None, :]).flatten(2)


@dataclass(frozen=True)
class Hidden:
    """What a student doesn't see. `p`: share of the large crops of which something is hidden; `area`: least and largest
    share of the area, less where blocks overlap; `blocks`: in how many."""

    p: Fraction = 0.5
    area: tuple[Fraction, Fraction] = (0.1, 0.5)
    blocks: Count = 4


class MaskedCrops(MultiCrop):
    """Crops as `MultiCrop` makes them, and blocks, `(n, 2 · blocks, 4)`, in which the first and then the second of the
    large ones are hidden; empty blocks where they are not."""

    def __init__(
        self,
        format: ImageFormat,
        *,
        crop: Crop = Crop(smallest=0.4),
        local: Local = Local(),
        flip: Fraction = 0.5,
        colour: Colour = Colour(),
        blur: Blur = Blur(),
        solarize: Fraction = 0.0,
        second: Second = Second(),
        hidden: Hidden = Hidden(),
    ) -> None:
        """`hidden`: the blocks; the rest as for `MultiCrop`."""
        super().__init__(
            format, crop=crop, local=local, flip=flip, colour=colour, blur=blur, solarize=solarize, second=second
        )
        self.hidden = hidden

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        crops = super().forward(fields)
        crop, hidden = crops[0], self.hidden
        area = torch.empty(2 * len(crop), 1, device=crop.device).uniform_(*hidden.area) / hidden.blocks
        area = area * (torch.rand_like(area) < hidden.p)
        blocks = draw_blocks(2 * len(crop), hidden.blocks, area, ASPECT, crop.device)
        return *crops, blocks.view(len(crop), 2 * hidden.blocks, 4)

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The crops alone."""
        return super().shown(views[:-1])


def hidden_patches(blocks: Tensor, across: int) -> Tensor:
    """Which patches of the first large crops, then of the second ones, lie in the blocks of `MaskedCrops`: bool
    `(2n, across²)`."""
    return torch.cat([inside(part, across).any(dim=1) for part in blocks.chunk(2, dim=1)])
