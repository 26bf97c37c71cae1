"""Distillation: see what a frozen network with weights that exist sees, in the whole and place by place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.networks.teacher import Frozen
from sslflow.settings.params import NonNegative
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.images import TwoViews


class Distillation(Method):
    """Student and teacher see the same views; a linear layer brings the student's features, another its map, to the
    teacher's width. The teacher's are standardised, dimension by dimension over the batch: most of a network's features
    is what they have in common for all images, and a student would learn that alone.

    Settings: `maps`, weight of the comparison of maps, on the coarser of both grids, beside that of features; 0, for
    networks that have none: features alone.
    """

    Views = TwoViews
    additive = True

    def __init__(self, encoder: Encoder, teacher: Encoder, *, maps: NonNegative = 1.0) -> None:
        super().__init__()
        self.encoder, self.teacher, self.maps = encoder, Frozen(teacher), maps
        self.projector, self.standard = nn.Linear(encoder.dim, teacher.dim), standard(teacher.dim)
        self.map_projector = nn.Linear(encoder.map_dim, teacher.map_dim) if maps else None
        self.map_standard = standard(teacher.map_dim)

    def training_step(self, batch: Batch) -> Losses:
        view = torch.cat(batch.views)
        if self.map_projector is None:
            with torch.no_grad():
                taught = self.teacher.network(view)
            return {"loss": cosine_distance(self.projector(self.encoder(view)), self.standard(taught.float()))}
        with torch.no_grad():
            taught, taught_map = self.teacher.network.features_and_map(view)
        features, last = self.encoder.features_and_map(view)
        mine, its = (one.flatten(2) for one in on_one_grid(last, taught_map.float()))
        losses = {
            "features": cosine_distance(self.projector(features), self.standard(taught.float())),
            "maps": cosine_distance(self.map_projector(mine.mT), self.map_standard(its).mT),
        }
        return {"loss": losses["features"] + self.maps * losses["maps"], **losses}


def standard(dim: int) -> nn.Module:
    """Standardises each of so many dimensions over the batch."""
    return nn.BatchNorm1d(dim, affine=False)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 − cosine of vectors `(…, dim)`, a mean: scalar, in [0, 2]."""
    return 1 - F.cosine_similarity(a.float(), b.float(), dim=-1).mean()


def on_one_grid(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps of the same images, `(n, …, rows, columns)`, averaged to the fewer rows and columns of both."""
    rows, columns = (min(sides) for sides in zip(a.shape[2:], b.shape[2:], strict=True))
    return F.adaptive_avg_pool2d(a, (rows, columns)), F.adaptive_avg_pool2d(b, (rows, columns))
