"""SimCLR: agree on two views of an image, differ from all other images (arXiv:2002.05709)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.images import TwoViews


class SimCLR(Method):
    """Settings: `projector`, widths of the head's layers; `temperature`, by which cosine similarities are divided."""

    Views = TwoViews

    def __init__(self, encoder: Encoder, *, projector: Widths = (2048, 128), temperature: Positive = 0.1) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, mlp(encoder.dim, *projector)
        self.temperature = temperature

    def training_step(self, batch: Batch) -> Losses:
        za, zb = (gather(self.projector(self.encoder(view))) for view in batch.views)
        return {"loss": nt_xent(za, zb, self.temperature)}

    def choices(self, images: int) -> Choices:
        return Choices(2 * images - 1, "views of the batch")


@full_precision
def nt_xent(za: Tensor, zb: Tensor, temperature: float) -> Tensor:
    """Normalised, temperature-scaled cross entropy of `za[i]`, `zb[i]`, both `(n, dim)`: scalar, the mean over all 2n
    anchors.

    Each anchor's other view stands against the 2n − 2 views of other images; at random it is about ln(2n − 1).
    """
    z = F.normalize(torch.cat([za, zb]), dim=1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(za))
    return F.cross_entropy(similarity, partner)
