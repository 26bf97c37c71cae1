"""LeJEPA: predict all views of an image from its large ones, features spread as a Gaussian (arXiv:2511.08544)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.networks.crops import forward_crops
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.runtime.rng import generator
from sslflow.settings.params import Count, Fraction, Widths
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.images import MultiCrop

POINTS, LIMIT = 17, 5.0
"""Where the characteristic functions are compared: at so many points from −`LIMIT` to `LIMIT`."""


class LeJEPA(Method):
    """Settings: `projector`, widths of the head's layers; `gaussian`, λ in (1 − λ) · prediction + λ · SIGReg; `slices`,
    the number of directions along which the projections of a batch are compared with a Gaussian, others in each step.
    """

    Views = MultiCrop

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 2048, 64),
        gaussian: Fraction = 0.05,
        slices: Count = 1024,
    ) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, mlp(encoder.dim, *projector)
        self.gaussian, self.slices = gaussian, slices

    def training_step(self, batch: Batch) -> Losses:
        own = forward_crops(nn.Sequential(self.encoder, self.projector), batch.views)
        z = gather(own.transpose(0, 1)).transpose(0, 1)
        numbers = generator(0, "slices", str(batch.progress))
        directions = torch.randn(z.shape[2], self.slices, generator=numbers).to(z.device)
        prediction, spread = prediction_error(z), sigreg(z, directions)
        loss = (1 - self.gaussian) * prediction + self.gaussian * spread
        return {"loss": loss, "prediction": prediction, "sigreg": spread}


@full_precision
def prediction_error(z: Tensor, large: int = 2) -> Tensor:
    """Mean squared difference of the projections of each view, `(views, n, dim)`, from the mean of those of the first
    `large` views of the same image: scalar."""
    return (z - z[:large].mean(dim=0)).square().mean()


@full_precision
def sigreg(z: Tensor, directions: Tensor) -> Tensor:
    """How far projections `(views, n, dim)` are from a standard Gaussian along the directions `(dim, slices)`, of any
    length: the Epps-Pulley statistic, n ∫ |φ(t) − exp(−t²/2)|² exp(−t²/2) dt with φ the characteristic function of the
    n numbers, by the trapezoidal rule; scalar, a mean over views and directions.
    """
    # |φ(t)| is that of −t: half of the points do, those but 0 counted twice.
    t = torch.linspace(0, LIMIT, POINTS // 2 + 1, device=z.device, dtype=z.dtype)
    weights = torch.full_like(t, 2 * LIMIT / (POINTS // 2))
    weights[[0, -1]] /= 2
    gaussian = (-t.square() / 2).exp()
    along = z @ (directions / directions.norm(dim=0)).to(z.dtype)
    turned = along.unsqueeze(-1) * t
    apart = (turned.cos().mean(dim=1) - gaussian).square() + turned.sin().mean(dim=1).square()
    return z.shape[1] * (apart @ (weights * gaussian)).mean()
