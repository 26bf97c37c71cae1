"""Autoencoder: draw the image again from its features alone (doi:10.1126/science.1127647)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.networks.decoder import from_features
from sslflow.networks.encoder import Encoder
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.images import CropView


class Autoencoder(Method):
    """The features are the bottleneck: what the decoder draws, they hold. Setting: `decoder`, the width of its first
    layers."""

    Views = CropView
    additive = True

    def __init__(self, encoder: Encoder, *, decoder: Count = 64) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = from_features(encoder.dim, encoder.channels, encoder.image_size, width=decoder)

    def training_step(self, batch: Batch) -> Losses:
        (view,) = batch.views
        return {"loss": squared_error(self.decoder(self.encoder(view)), view)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        (view,) = batch.views
        return {"image": view, "drawn": self.decoder(self.encoder(view)).float()}


def squared_error(drawn: Tensor, images: Tensor) -> Tensor:
    """Mean squared difference of normalised images, both `(n, c, s, s)`: scalar, about 1 for who draws the mean
    image's grey."""
    return F.mse_loss(drawn.float(), images.float())
