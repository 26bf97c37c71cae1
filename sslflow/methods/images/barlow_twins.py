"""Barlow Twins: the cross-correlation of two views' projections becomes the identity (arXiv:2103.03230)."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import NonNegative, Widths
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.images import TwoViews


class BarlowTwins(Method):
    """Settings: `projector`, widths of the head's layers; `redundancy`, the weight of the terms off the diagonal."""

    Views = TwoViews

    def __init__(
        self, encoder: Encoder, *, projector: Widths = (2048, 2048, 2048), redundancy: NonNegative = 5e-3
    ) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, mlp(encoder.dim, *projector)
        self.redundancy = redundancy

    def training_step(self, batch: Batch) -> Losses:
        za, zb = (gather(self.projector(self.encoder(view))) for view in batch.views)
        invariance, redundancy = barlow_terms(za, zb)
        return {
            "loss": invariance + self.redundancy * redundancy,
            "invariance": invariance,
            "redundancy": redundancy,
        }


@full_precision
def barlow_terms(za: Tensor, zb: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the cross-correlation c of `za`, `zb`, both `(n, dim)`: of (1 − c)² on its diagonal, and of c² off it.

    Features are normalised over the batch as BatchNorm does it (biased variance, eps 1e-5), like the authors' code.
    """
    za, zb = (_normalise(z) for z in (za, zb))
    correlation = za.T @ zb / len(za)
    on_diagonal = correlation.diagonal()
    return (1 - on_diagonal).square().sum(), correlation.square().sum() - on_diagonal.square().sum()


def _normalise(z: Tensor) -> Tensor:
    return (z - z.mean(dim=0)) * torch.rsqrt(z.var(dim=0, correction=0) + 1e-5)
