"""SimCLR on volumes: agree on two views of a volume, differ from all others (arXiv:2002.05709; in three dimensions
arXiv:2006.03829)."""

from __future__ import annotations

from sslflow.networks.heads import mlp
from sslflow.networks.symmetric import nt_xent
from sslflow.networks.volumes import VolumeEncoder
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.volumes import TwoVolumeViews


class SimCLR3D(Method):
    """`simclr` with other views; its settings: `projector`, widths of the head's layers; `temperature`, by which cosine
    similarities are divided; `decoupled`, whether the other view is left out of what it stands against."""

    encoder: VolumeEncoder  # pyright: ignore[reportIncompatibleVariableOverride]

    Views = TwoVolumeViews

    def __init__(
        self,
        encoder: VolumeEncoder,
        *,
        projector: Widths = (512, 128),
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
