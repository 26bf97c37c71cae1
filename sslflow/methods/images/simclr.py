"""SimCLR: agree on two views of an image, differ from all other images (arXiv:2002.05709; DCL: arXiv:2110.06848)."""

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
    """Settings: `projector`, widths of the head's layers; `temperature`, by which cosine similarities are divided;
    `decoupled`, whether the other view is left out of what it stands against (DCL), which helps small batches."""

    Views = TwoViews

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 128),
        temperature: Positive = 0.1,
        decoupled: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, mlp(encoder.dim, *projector)
        self.temperature, self.decoupled = temperature, decoupled

    def training_step(self, batch: Batch) -> Losses:
        za, zb = (gather(self.projector(self.encoder(view))) for view in batch.views)
        return {"loss": nt_xent(za, zb, self.temperature, self.decoupled)}

    def choices(self, images: int) -> Choices:
        return Choices(2 * images - 1 - self.decoupled, "views of the batch")


@full_precision
def nt_xent(za: Tensor, zb: Tensor, temperature: float, decoupled: bool = False) -> Tensor:
    """Normalised, temperature-scaled cross entropy of `za[i]`, `zb[i]`, both `(n, dim)`: scalar, the mean over all 2n
    anchors.

    Each anchor's other view stands against the 2n − 2 views of other images; at random it is about ln(2n − 1). With
    `decoupled` the other view is no part of the sum that it is compared with, and that is ln(2n − 2): where it is told
    from all others already, the gradient does not vanish, and the loss may fall below 0.
    """
    z = F.normalize(torch.cat([za, zb]), dim=1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    every, partner = torch.arange(len(z), device=z.device), torch.arange(len(z), device=z.device).roll(len(za))
    if not decoupled:
        return F.cross_entropy(similarity, partner)
    right = similarity[every, partner]
    return (similarity.index_put((every, partner), right.new_tensor(-torch.inf)).logsumexp(dim=1) - right).mean()
