"""Depth prediction: tell from an image how far away everything is, up to its scale (arXiv:1406.2283)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.depth import DepthFacts
from sslflow.networks.decoder import Decoder
from sslflow.networks.encoder import Encoder
from sslflow.runtime.distributed import all_reduce_sum
from sslflow.settings.params import Count, Fraction
from sslflow.training.log_depth import scale_invariant
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.depth import DepthView, drawn
from sslflow.views.strengths import Share


class DepthPrediction(Method):
    """Settings: `side` of the map that is predicted, as a share of the image's; `decoder`, the width of its first
    layers; `invariance`, λ: how far an error that is the same for a whole image is forgiven (0: it counts as any other,
    1: it costs nothing)."""

    Views = DepthView

    usual: Tensor

    def __init__(
        self,
        encoder: Encoder,
        depth: DepthFacts,
        *,
        side: Share = 0.5,
        decoder: Count = 64,
        invariance: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.encoder, self.depth, self.invariance = encoder, depth, invariance
        self.side = max(1, round(side * encoder.image_size))
        self.decoder = Decoder(encoder.map_dim, 1, self.side, width=decoder)
        # Sums of log depth at each place, and how often it was known: for the best constant answer.
        self.register_buffer("usual", torch.zeros(2, self.side, self.side))

    def training_step(self, batch: Batch) -> Losses:
        images, maps, _ = batch.views
        true, known = reduced(maps, self.side)
        places = torch.stack([(true * known).sum(dim=(0, 1)), known.sum(dim=(0, 1))])
        self.usual += all_reduce_sum(places)
        constant = (self.usual[0] / self.usual[1].clamp_min(1)).expand_as(true)
        return {
            "loss": scale_invariant(self._told(images), true, known, self.invariance),
            "chance_loss": scale_invariant(constant, true, known, self.invariance),
        }

    def _told(self, images: Tensor) -> Tensor:
        return self.depth.mean_log + self.depth.std_log * self.decoder(self.encoder.map(images)).float()

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """The image, what is told of its depth, and what is true."""
        images, maps, ends = batch.views
        told = F.interpolate(self._told(images), size=images.shape[-2:], mode="bilinear")
        known = maps > 0
        return {
            "image": images,
            "told": drawn(told, torch.ones_like(known), ends),
            "true": drawn(self.depth.logs(maps), known, ends),
        }


def reduced(maps: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Log depth of maps `(n, 1, s, s)`, each place a mean over the pixels that are known in it, and where any is, 0 or
    1: both `(n, 1, side, side)`."""
    known = (maps > 0).float()
    share = F.adaptive_avg_pool2d(known, side)
    logs = F.adaptive_avg_pool2d(DepthFacts.logs(maps), side) / share.clamp_min(1e-6)
    return logs, (share > 0).float()
