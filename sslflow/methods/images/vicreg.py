"""VICReg: pull views together; keep every feature alive and distinct (arXiv:2105.04906)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import NonNegative, Widths
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.images import TwoViews


class VICReg(Method):
    """Settings: `projector`, widths of the head's layers; `invariance`, `variance`, `covariance`, weights of the three
    terms."""

    Views = TwoViews

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (8192, 8192, 8192),
        invariance: NonNegative = 25.0,
        variance: NonNegative = 25.0,
        covariance: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, mlp(encoder.dim, *projector)
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def training_step(self, batch: Batch) -> Losses:
        za, zb = (gather(self.projector(self.encoder(view))) for view in batch.views)
        terms = vicreg_terms(za, zb)
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": loss, **terms}


@full_precision
def vicreg_terms(za: Tensor, zb: Tensor) -> dict[str, Tensor]:
    """Of `za`, `zb`, both `(n, dim)`, three scalars: `invariance`, their mean squared difference; `variance`, how far
    standard deviations fall short of 1, a mean over dimensions and views; `covariance`, squares of the covariances of
    different dimensions, summed over views and divided by `dim`."""
    return {
        "invariance": F.mse_loss(za, zb),
        "variance": (_shortfall(za) + _shortfall(zb)) / 2,
        "covariance": _covariance(za) + _covariance(zb),
    }


def _shortfall(z: Tensor) -> Tensor:
    # The constant keeps the gradient of the root finite where a feature has died.
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def _covariance(z: Tensor) -> Tensor:
    z = z - z.mean(dim=0)
    covariance = z.T @ z / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
