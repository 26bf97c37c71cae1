"""An encoder's maps of several sizes, for decoders and detectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder


class Stages(nn.Module):
    """Images to the maps of an encoder's stages, from the finest to the coarsest: of maps of one size the last. A ViT,
    whose maps are all of one size, and a network that tells of no stages have a single one, `Encoder.map`.

    `dims`: channels of each map; `across`: rows of each for an image of the encoder's size.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Raises `ValueError` for the few networks that make no map."""
        super().__init__()
        self.encoder = encoder
        self.several = hasattr(encoder.network, "forward_intermediates") and not encoder.is_vit
        self._kept: list[int] | None = None
        training = encoder.training
        with torch.no_grad():
            maps = self.eval()(torch.zeros(1, encoder.channels, encoder.image_size, encoder.image_size))
            sides = [found.shape[-1] for found in maps]
            self._kept = [i for i, side in enumerate(sides) if side not in sides[i + 1 :]]
        encoder.train(training)
        self.dims: tuple[int, ...] = tuple(maps[i].shape[1] for i in self._kept)
        self.across: tuple[int, ...] = tuple(sides[i] for i in self._kept)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps `(n, dim, rows, columns)` of normalised images `(n, channels, height, width)`."""
        if not self.several:
            return [self.encoder.map(images)]
        maps = self.encoder.network.forward_intermediates(
            self.encoder.brought(images), intermediates_only=True, output_fmt="NCHW"
        )
        return maps if self._kept is None else [maps[i] for i in self._kept]
