"""Context prediction: tell on which side of an image's centre another tile lies (arXiv:1505.05192)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.tiles import TILES, TileViews, assembled, cells

CENTRE = TILES // 2
SIDES = TILES - 1


class ContextPrediction(Method):
    """All eight neighbours of the centre are asked for in each step: with one pass of nine tiles, where eight pairs
    would be sixteen. Setting: `hidden`, the width of the classifier's hidden layer."""

    Views = TileViews
    additive = True

    def __init__(self, encoder: Encoder, *, hidden: Count = 512) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, mlp(2 * encoder.dim, hidden, SIDES)

    def training_step(self, batch: Batch) -> Losses:
        tiles, _ = batch.views
        logits = self._where(tiles).flatten(0, 1)
        sides = torch.arange(SIDES, device=tiles.device).repeat(len(tiles))
        accuracy = (logits.argmax(dim=1) == sides).float().mean()
        return {"loss": F.cross_entropy(logits, sides), "accuracy": accuracy}

    def _where(self, tiles: Tensor) -> Tensor:
        """Logits of the eight sides for each of the eight neighbours, `(n, 8, 8)`."""
        centre, others = split(self.encoder(tiles.flatten(0, 1)).unflatten(0, (-1, TILES)))
        pairs = torch.cat([centre.expand_as(others), others], dim=2)
        return self.classifier(pairs.flatten(0, 1)).float().unflatten(0, (-1, SIDES))

    def choices(self, images: int) -> Choices:
        return Choices(SIDES, "sides of a tile")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """The centre with one of its neighbours, put where the classifier says, and where it belongs."""
        tiles, images = batch.views
        row = torch.arange(len(tiles), device=tiles.device)
        side = row % SIDES
        told = self._where(tiles)[row, side].argmax(dim=1)
        centre, others = split(cells(images))

        def put(where: Tensor) -> Tensor:
            around = torch.zeros_like(others)
            around[row, where] = others[row, side]
            return assembled(torch.cat([around[:, :CENTRE], centre, around[:, CENTRE:]], dim=1), images.shape[-1])

        return {"told": put(told), "true": put(side), "image": images}


def split(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """The centre `(n, 1, …)` of nine tiles `(n, 9, …)`, and its neighbours `(n, 8, …)` in their order."""
    return tiles[:, CENTRE, None], torch.cat([tiles[:, :CENTRE], tiles[:, CENTRE + 1 :]], dim=1)
