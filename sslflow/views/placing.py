"""Which part of each image a view shows: crops and flips of a whole batch, drawn at once and on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RATIO = 3 / 4, 4 / 3
"""Width over height of a crop, least and largest, as in Inception (arXiv:1409.4842)."""
TRIES = 10
"""Sizes drawn for each crop, the first that fits into the image is taken; if none does, the whole image."""


@dataclass(frozen=True)
class Places:
    """A part of each of n images, of whole pixels, to be shown `side` pixels wide and high. `left` and `top`: its first
    column and row; `width`, `height`: its size, all float `(n,)`; `flipped`: whether it is mirrored, bool `(n,)`."""

    side: int
    left: Tensor
    top: Tensor
    width: Tensor
    height: Tensor
    flipped: Tensor

    def shown(self, images: Tensor, *, corners: bool) -> Tensor:
        """The parts of float images `(m, c, h, w)`, blended from the four nearest pixels, `(n, c, side, side)`; where n
        is a multiple of m, image by image and then all of them again.

        `corners`: the middles of the outermost pixels lie on those of the part; else its edges on the part's.
        """
        columns, rows = self._along(self.left, self.width, corners), self._along(self.top, self.height, corners)
        columns, rows = (
            2 * positions / max(1, length - 1) - 1
            for positions, length in ((self._turned(columns), images.shape[3]), (rows, images.shape[2]))
        )
        shape = len(rows), self.side, self.side
        grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=3)
        # Every view reads the same images, which need not be copied for it.
        parts = [F.grid_sample(images, part, "bilinear", "border", True) for part in grid.split(len(images))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def nearest(self, maps: Tensor) -> Tensor:
        """The parts of maps `(n, h, w)` of any type, of each place the nearest pixel, `(n, side, side)`."""
        steps = (torch.arange(self.side, device=maps.device) + 0.5) / self.side
        columns = (self.left[:, None] + (steps * self.width[:, None]).floor()).long()
        rows = (self.top[:, None] + (steps * self.height[:, None]).floor()).long()
        return picked(maps[:, None], rows, self._turned(columns))[:, 0]

    def moved(self, points: Tensor) -> Tensor:
        """Where places in the images are seen: x and y from their left upper corners, in pixels, `(n, k, 2)`."""
        first, size = torch.stack([self.left, self.top], dim=1), torch.stack([self.width, self.height], dim=1)
        seen = (points - first[:, None]) * (self.side / size)[:, None]
        x, y = seen.unbind(dim=2)
        return torch.stack([torch.where(self.flipped[:, None], self.side - x, x), y], dim=2)

    def _along(self, first: Tensor, length: Tensor, corners: bool) -> Tensor:
        """Positions of a view's pixels in the image, `(n, side)`, counted in its pixels, the first one's middle 0."""
        steps = torch.arange(self.side, device=first.device)
        first, length = first[:, None], length[:, None]
        if corners:
            return first + steps / max(1, self.side - 1) * (length - 1)
        inside = ((steps + 0.5) / self.side * length - 0.5).clamp_min(0).minimum(length - 1)
        return first + inside

    def _turned(self, columns: Tensor) -> Tensor:
        return torch.where(self.flipped[:, None], columns.flip(1), columns)


@dataclass(frozen=True)
class Placing:
    """Crops anywhere in an image, and flips, each image by its own draw. `side`: of the views, in pixels; `scale`:
    smallest and largest share of the area, evenly drawn; `flip`: probability of a horizontal flip; `ratio`: least and
    largest width over height, their logarithms evenly drawn."""

    side: int
    scale: tuple[float, float]
    flip: float
    ratio: tuple[float, float] = RATIO

    def draw(self, count: int, height: int, width: int, device: torch.device | None = None) -> Places:
        """Parts of so many images of one size, in pixels. Torch's global generator is asked once."""
        lots = torch.rand(2 * TRIES + 3, count, device=device)
        areas, shapes, (across, down, turn) = lots[:TRIES], lots[TRIES : 2 * TRIES], lots[2 * TRIES :]
        low, high = map(math.log, self.ratio)
        areas = (self.scale[0] + (self.scale[1] - self.scale[0]) * areas) * (height * width)
        shapes = (low + (high - low) * shapes).exp()
        widths, heights = (areas * shapes).sqrt().round(), (areas / shapes).sqrt().round()
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        first = fits.int().argmax(dim=0, keepdim=True)
        # As torchvision does: of an image that is too long for every shape, as much of its middle length as there is.
        whole = min(width, round(height * self.ratio[1])), min(height, round(width / self.ratio[0]))
        fitting = fits.any(dim=0)
        wide, tall = (
            torch.where(fitting, sizes.gather(0, first)[0], size)
            for sizes, size in zip((widths, heights), whole, strict=True)
        )
        return Places(
            self.side,
            (across * (width - wide + 1)).floor().minimum(width - wide),
            (down * (height - tall + 1)).floor().minimum(height - tall),
            wide,
            tall,
            turn < self.flip,
        )


def picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Some pixels of images `(n, c, h, w)` of any type: those in `rows` and `columns`, int64 `(n, a)` and `(n, b)`,
    `(n, c, a, b)`."""
    chosen = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    found = images.flatten(2).gather(2, chosen[:, None].expand(-1, images.shape[1], -1))
    return found.unflatten(2, (rows.shape[1], columns.shape[1]))


def shifted(images: Tensor, most: int, flip: float) -> Tensor:
    """Images `(n, c, h, w)` of any type moved by whole pixels, at most `most` either way, borders reflected, and
    mirrored with the probability `flip`; each by its own draw."""
    height, width = images.shape[2:]
    across, down, turn = torch.rand(3, len(images), 1, device=images.device)
    rows, columns = (
        _reflected(torch.arange(length, device=images.device) + (lots * (2 * most + 1)).floor().long() - most, length)
        for lots, length in ((down, height), (across, width))
    )
    return picked(images, rows, torch.where(turn < flip, columns.flip(1), columns))


def _reflected(places: Tensor, length: int) -> Tensor:
    """Places less than `length` outside of 0 to `length` − 1, mirrored at the border pixel, which isn't repeated."""
    return (length - 1 - (length - 1 - places.abs()).abs()).clamp_min(0)
