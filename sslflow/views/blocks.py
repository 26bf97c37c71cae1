"""Rectangles of an image, drawn by chance: what of it is hidden, or asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
