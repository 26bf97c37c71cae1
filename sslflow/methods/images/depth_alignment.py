"""Depth alignment: an image and its depth map find each other among those of a batch (CMC, arXiv:1906.05849)."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.data.depth import DepthFacts
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.symmetric import symmetric_info_nce
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.depth import DepthView, drawn


class DepthAlignment(Method):
    """Settings: `projector`, widths of the layers of either side's head; `temperature`, by which cosine similarities
    are divided."""

    Views = DepthView

    def __init__(
        self,
        encoder: Encoder,
        depth_encoder: Encoder,
        depth: DepthFacts,
        *,
        projector: Widths = (2048, 128),
        temperature: Positive = 0.1,
    ) -> None:
        super().__init__()
        self.encoder, self.depth_encoder, self.depth = encoder, depth_encoder, depth
        self.projector = mlp(encoder.dim, *projector)
        self.depth_projector = mlp(depth_encoder.dim, *projector)
        self.temperature = temperature

    def training_step(self, batch: Batch) -> Losses:
        images, maps, _ = batch.views
        za, zb = gather(self.projector(self.encoder(images))), gather(self._embed(maps))
        nothing = gather((maps == 0).flatten(1).all(dim=1))
        # A crop in which no depth is known is nobody's partner, and nobody's wrong answer.
        loss = symmetric_info_nce(za, zb, 1 / self.temperature, nothing[:, None] | nothing)
        return {"loss": loss}

    def _embed(self, maps: Tensor) -> Tensor:
        return self.depth_projector(self.depth_encoder(self.depth.standardised(maps)))

    def choices(self, images: int) -> Choices:
        return Choices(images, "depth maps of the batch")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Each image, its own depth map, and the three maps of the batch that it is nearest to."""
        images, maps, ends = batch.views
        za, zb = (
            torch.nn.functional.normalize(z, dim=1) for z in (self.projector(self.encoder(images)), self._embed(maps))
        )
        nearest = (za @ zb.T).topk(min(3, len(maps)), dim=1).indices
        pictures = drawn(self.depth.logs(maps), maps > 0, ends)
        guesses = {f"guess {rank + 1}": pictures[nearest[:, rank]] for rank in range(nearest.shape[1])}
        return {"image": images, "depth": pictures, **guesses}
