"""BYOL: predict from one view what a slow copy of the network sees in the other (arXiv:2006.07733)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.teacher import Teacher
from sslflow.settings.params import Count, Fraction, Widths
from sslflow.training.method import Batch, Losses, Method
from sslflow.training.schedules import cosine
from sslflow.views.images import TwoViews


class BYOL(Method):
    """Settings: `projector`, widths of the head's layers; `predictor`, width of the predictor's hidden layer;
    `momentum`, what the teacher keeps of itself in the first step: it rises to 1 along half a cosine. A run of few
    steps wants less of it, or its teacher stays where it started."""

    Views = TwoViews
    additive = True

    def __init__(
        self, encoder: Encoder, *, projector: Widths = (4096, 256), predictor: Count = 4096, momentum: Fraction = 0.996
    ) -> None:
        super().__init__()
        widths = (encoder.dim, *projector)
        self.encoder, self.projector = encoder, mlp(*widths)
        for last in self.projector[-1:]:
            last.register_parameter("bias", None)  # the predictor's BatchNorm would take it away: nothing to learn
        self.predictor = mlp(widths[-1], predictor, widths[-1])
        self.teacher = Teacher(nn.Sequential(encoder, self.projector))
        self.momentum = momentum

    def training_step(self, batch: Batch) -> Losses:
        pa, pb = (self.predictor(self.projector(self.encoder(view))) for view in batch.views)
        ta, tb = (self.teacher(view) for view in batch.views)
        return {"loss": distance(pa, tb) + distance(pb, ta)}

    def after_step(self, progress: float) -> None:
        student = nn.Sequential(self.encoder, self.projector)
        self.teacher.follow(student, cosine(self.momentum, 1.0, progress))


def distance(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared distance of rows, both `(n, dim)`, scaled to length 1: scalar, 2 − 2·cosine, in [0, 4]."""
    return 2 - 2 * F.cosine_similarity(predictions.float(), targets.float(), dim=1).mean()
