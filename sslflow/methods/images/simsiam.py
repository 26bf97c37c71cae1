"""SimSiam: predict one view's projection from the other's, which holds still (arXiv:2011.10566)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.settings.params import Count, Widths
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.images import TwoViews


class SimSiam(Method):
    """Settings: `projector`, widths of the head's layers, the last one normalised, too; `predictor`, width of the
    predictor's hidden layer: a bottleneck, a quarter of the last width in the paper."""

    Views = TwoViews
    additive = True

    def __init__(self, encoder: Encoder, *, projector: Widths = (2048, 2048, 2048), predictor: Count = 512) -> None:
        super().__init__()
        widths = (encoder.dim, *projector)
        self.encoder, self.projector = encoder, mlp(*widths, last_norm=True)
        self.predictor = mlp(widths[-1], predictor, widths[-1])

    def training_step(self, batch: Batch) -> Losses:
        za, zb = (self.projector(self.encoder(view)) for view in batch.views)
        pa, pb = self.predictor(za), self.predictor(zb)
        # Without detach everything moves to one point: the loss is then −1, and the features are worth nothing.
        return {"loss": (negative_cosine(pa, zb.detach()) + negative_cosine(pb, za.detach())) / 2}


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Minus the mean cosine similarity of rows, both `(n, dim)`: scalar in [−1, 1]."""
    return -F.cosine_similarity(predictions.float(), targets.float(), dim=1).mean()
