"""Denoising autoencoder: draw the clean image from the features of a noisy one (doi:10.1145/1390156.1390294)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.networks.decoder import from_features
from sslflow.networks.encoder import Encoder
from sslflow.settings.params import Count, Fraction, NonNegative
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.images import CropView


class NoisyViews(CropView):
    """The image with noise, and without."""

    def __init__(
        self,
        format: ImageFormat,
        *,
        shift: Fraction = 0.1,
        flip: Fraction = 0.5,
        noise: NonNegative = 0.0,
        dropped: Fraction = 0.25,
    ) -> None:
        """`noise`: standard deviation of Gaussian noise, that of the images' own pixels being 1; `dropped`: share of
        the pixels that are replaced by the mean colour; `shift` and `flip` as for `CropView`."""
        super().__init__(format, shift=shift, flip=flip)
        self.noise, self.dropped = noise, dropped

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (clean,) = super().forward(fields)
        noisy = clean + self.noise * torch.randn_like(clean)
        return noisy * (torch.rand_like(clean[:, :1]) >= self.dropped), clean


class Denoising(Method):
    """The features are the bottleneck. Setting: `decoder`, the width of its first layers."""

    Views = NoisyViews
    additive = True

    def __init__(self, encoder: Encoder, *, decoder: Count = 64) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = from_features(encoder.dim, encoder.channels, encoder.image_size, width=decoder)

    def training_step(self, batch: Batch) -> Losses:
        noisy, clean = batch.views
        return {"loss": squared_error(self.decoder(self.encoder(noisy)), clean)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        noisy, clean = batch.views
        return {"with noise": noisy, "cleaned": self.decoder(self.encoder(noisy)).float(), "without": clean}


def squared_error(drawn: Tensor, clean: Tensor) -> Tensor:
    """Mean squared difference of what was drawn from noisy images and the clean ones, both `(n, c, s, s)`: scalar."""
    return F.mse_loss(drawn.float(), clean.float())
