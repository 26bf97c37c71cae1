"""Supervised: learn the labels themselves, all of them; the control that shows what labels are worth."""

from __future__ import annotations

from torch import Tensor

from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch
from sslflow.training.supervised import LearnsLabels
from sslflow.views.images import CropView


class Supervised(LearnsLabels):
    """The one method of images that sees labels. Raises `ValueError` where fewer than two classes have labels."""

    Views = CropView
    additive = True
    advice = "leave it out of run.methods, or name labelled images in data.source or data.probe_source"

    def __init__(self, encoder: Encoder, labels: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.learn(labels)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        return {"shown": batch.views[0]}
