"""Jigsaw: tell in which order the tiles of an image were laid out (arXiv:1603.09246)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.settings.params import Count, Fraction
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.tiles import TILES, Tiles, TileViews, assembled, cells

CANDIDATES = 40_000
"""Permutations from which the distant ones are chosen; from all 362,880 they would hardly be further apart."""


class Puzzles(TileViews):
    """Tiles in their true order; numbers below 2^62 `(n, puzzles)`, from which the method takes the orders that it
    lays them out in; and the image."""

    def __init__(
        self, format: ImageFormat, *, puzzles: Count = 4, tiles: Tiles = Tiles(), flip: Fraction = 0.5
    ) -> None:
        """`puzzles`: orders of each image's tiles in a step; the rest as for `TileViews`."""
        super().__init__(format, tiles=tiles, flip=flip)
        self.puzzles = puzzles

    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        tiles, whole = super().forward(fields)
        return tiles, torch.randint(2**62, (len(whole), self.puzzles), device=whole.device), whole


class Jigsaw(Method):
    """Tiles pass through the encoder one by one, so that it is their features that are laid out: many puzzles of an
    image cost one pass. Settings: `permutations`, the number of orders to tell apart; `per_tile`, the width that a
    tile's features are brought to; `hidden`, that of the classifier's hidden layer."""

    Views = Puzzles
    additive = True

    permutations: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        permutations: Annotated[int, Ge(2), Le(1000)] = 64,
        per_tile: Count = 64,
        hidden: Count = 512,
    ) -> None:
        super().__init__()
        self.encoder, self.narrow = encoder, nn.Linear(encoder.dim, per_tile)
        self.classifier = mlp(TILES * per_tile, hidden, permutations)
        self.register_buffer("permutations", distant_permutations(permutations))

    def training_step(self, batch: Batch) -> Losses:
        tiles, numbers, _ = batch.views
        answers = numbers % len(self.permutations)
        logits, answers = self._solve(tiles, answers).flatten(0, 1), answers.flatten()
        accuracy = (logits.argmax(dim=1) == answers).float().mean()
        return {"loss": F.cross_entropy(logits, answers), "accuracy": accuracy}

    def _solve(self, tiles: Tensor, numbers: Tensor) -> Tensor:
        """Logits of all permutations, `(n, puzzles, permutations)`, for tiles that were laid out by those of the
        `numbers` `(n, puzzles)`."""
        features = self.narrow(self.encoder(tiles.flatten(0, 1))).unflatten(0, (-1, TILES))
        laid_out = shuffled(features, self.permutations[numbers]).flatten(2)
        return self.classifier(laid_out.flatten(0, 1)).float().unflatten(0, (len(tiles), -1))

    def choices(self, images: int) -> Choices:
        return Choices(len(self.permutations), "permutations")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """A puzzle of each image, and the puzzle laid out as the classifier says."""
        tiles, numbers, images = batch.views
        given = numbers[:, :1] % len(self.permutations)
        told = self._solve(tiles, given).argmax(dim=2)
        puzzle = shuffled(cells(images), self.permutations[given])[:, 0]
        solved = shuffled(puzzle, self.permutations[told].argsort(dim=2))[:, 0]
        size = images.shape[-1]
        return {"shown": assembled(puzzle, size), "solved": assembled(solved, size), "image": images}


def shuffled(tiles: Tensor, orders: Tensor) -> Tensor:
    """Tiles `(n, 9, …)`, or their features, in each of the `orders` `(n, puzzles, 9)`: `(n, puzzles, 9, …)`; place i
    of an order holds the number of the tile that comes to lie there."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None, None], orders]


def distant_permutations(count: int) -> Tensor:
    """Permutations of nine tiles that differ in as many places as can be, `(count, 9)`, always the same ones.

    Each is the one of many whose nearest among those before it is furthest from it; of equals the one that is furthest
    from all of them together.
    """
    many = torch.rand(CANDIDATES, TILES, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    # In bytes, with the places as rows: three times as fast.
    places = many.to(torch.uint8).T.contiguous()
    nearest = torch.full((CANDIDATES,), TILES, dtype=torch.uint8)
    together = torch.zeros(CANDIDATES, dtype=torch.int32)
    chosen = [0]
    while len(chosen) < count:
        apart = (places != places[:, chosen[-1], None]).view(torch.uint8).sum(dim=0, dtype=torch.uint8)
        nearest = torch.minimum(nearest, apart)
        together += apart
        chosen.append(int((nearest.int() * (TILES * count + 1) + together).argmax()))
    return many[chosen]
