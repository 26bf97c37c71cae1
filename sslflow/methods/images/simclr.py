"""SimCLR: agree on two views of an image, differ from all other images (arXiv:2002.05709; DCL: arXiv:2110.06848)."""

from __future__ import annotations

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Positive, Widths
from sslflow.training.contrast import nt_xent
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
