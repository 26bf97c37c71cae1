"""Images cut into nine tiles, for puzzles that ask how they belong together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.settings.params import Fraction
from sslflow.views.images import Views
from sslflow.views.strengths import Share

GRID = 3
TILES = GRID * GRID
FAINTEST = 0.1
"""Contrast of a tile, as a share of the data's, that is stretched no further: an empty tile would become noise."""
NOISE = 0.01
"""What stands in for a dropped channel: noise of this deviation, where the channel that stays has 1."""


@dataclass(frozen=True)
class Tiles:
    """How tiles are cut. `gap`, that always stays free between them, and `jitter`, by which they move, are shares of a
    cell's side; the rest is the tile. It is resized to the share `side` of the image's: the encoder, which is to be
    used on whole images, then makes maps as large as theirs of it. `drop`: probability that an image loses its colours.
    """

    gap: Fraction = 0.1
    jitter: Fraction = 0.2
    side: Share = 1.0
    drop: Fraction = 0.3


class TileViews(Views):
    """Nine tiles of each image, row by row, `(n, 9, c, t, t)`, and the image that they were cut from, normalised.

    Borders would give away which tiles belong together, so each is smaller than its cell of the image and lies at a
    random place in it. Light would, so each is brought to mean 0 and deviation 1 in every channel. And a lens bends
    the colours the more the nearer they are to the rim, which tells where a tile was: so some images keep only one of
    their channels (arXiv:1505.05192).
    """

    def __init__(self, format: ImageFormat, *, tiles: Tiles = Tiles(), flip: Fraction = 0.5) -> None:
        """`flip`: probability of a mirror image. Raises `ValueError` where nothing is left of a tile."""
        super().__init__(format)
        cell = format.size // GRID
        self.gap, self.jitter = round(tiles.gap * cell), round(tiles.jitter * cell)
        self.tile, self.side = cell - self.gap - self.jitter, max(1, round(tiles.side * format.size))
        if self.tile < 2:
            raise ValueError(
                f"views.tiles.gap {tiles.gap} and views.tiles.jitter {tiles.jitter} leave no tile of a cell of {cell} "
                "pixels; choose smaller ones, or larger images"
            )
        self.drop, self.flip = tiles.drop, flip

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        images = fields["images"]
        n, device = len(images), images.device
        mirrored = torch.rand(n, 1, 1, 1, device=device) < self.flip
        images = self.normalise(torch.where(mirrored, images.flip(-1), images))
        moves = torch.randint(self.jitter + 1, (n, TILES, 2), device=device)
        tiles = cut(images, corners(images) + self.gap // 2 + moves, self.tile).flatten(0, 1)
        tiles = F.interpolate(tiles, size=(self.side, self.side), mode="bilinear", antialias=True)
        return self._dropped(even(tiles).unflatten(0, (n, TILES))), images

    def _dropped(self, tiles: Tensor) -> Tensor:
        n, _, channels = tiles.shape[:3]
        if channels == 1:
            return tiles
        stays = F.one_hot(torch.randint(channels, (n,), device=tiles.device), channels).bool()
        stays |= torch.rand(n, 1, device=tiles.device) >= self.drop
        return torch.where(stays[:, None, :, None, None], tiles, NOISE * torch.randn_like(tiles))

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The tiles as the encoder sees them, side by side."""
        return [self.normalise.restore(assembled(views[0], views[-1].shape[-1]))]


def corners(images: Tensor) -> Tensor:
    """Where the nine cells of images `(…, s, s)` begin, row by row: row and column, int64 `(9, 2)`."""
    size = images.shape[-1]
    starts = size % GRID // 2 + size // GRID * torch.arange(GRID, device=images.device)
    return torch.cartesian_prod(starts, starts)


def cut(images: Tensor, begin: Tensor, side: int) -> Tensor:
    """Squares of `side` pixels, `(n, tiles, c, side, side)`, of images `(n, c, s, s)`; `begin` holds the row and the
    column of their first pixels, int64 `(n, tiles, 2)`, or `(tiles, 2)` for all images alike."""
    covered = begin.expand(len(images), -1, -1)[..., None] + torch.arange(side, device=images.device)
    rows, columns = covered[:, :, 0, :, None], covered[:, :, 1, None, :]
    image = torch.arange(len(images), device=images.device)[:, None, None, None]
    return images[image, :, rows, columns].movedim(-1, 2)


def cells(images: Tensor) -> Tensor:
    """The nine cells of images `(n, c, s, s)`, with nothing between them, `(n, 9, c, t, t)`."""
    return cut(images, corners(images), images.shape[-1] // GRID)


def even(tiles: Tensor) -> Tensor:
    """Tiles `(n, c, t, t)` brought to mean 0 and standard deviation 1 in each channel; faint ones stay faint."""
    std, mean = torch.std_mean(tiles, dim=(2, 3), correction=0, keepdim=True)
    return (tiles - mean) / std.clamp_min(FAINTEST)


def assembled(tiles: Tensor, size: int) -> Tensor:
    """Images `(n, c, size, size)` of nine tiles each, `(n, 9, c, t, t)`, for people to look at: a pixel of mean colour
    stands between tiles."""
    n, _, channels = tiles.shape[:3]
    cell, rest = divmod(size, GRID)
    small = F.interpolate(tiles.flatten(0, 1), size=(cell - 1, cell - 1), mode="bilinear", antialias=True)
    bordered = F.pad(small, (0, 1, 0, 1)).view(n, GRID, GRID, channels, cell, cell)
    whole = bordered.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, GRID * cell, GRID * cell)
    return F.pad(whole, (rest // 2, rest - rest // 2, rest // 2, rest - rest // 2))
