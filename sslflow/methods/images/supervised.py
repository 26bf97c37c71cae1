"""Supervised: learn the labels themselves, all of them; the control that shows what labels are worth."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch, Choices, Losses, Method, chance_level
from sslflow.views.images import CropView

NO_LABEL = -1


class Supervised(Method):
    """The one method that sees labels. They come in here, by the constructor: int64 `(images,)`, −1 where there is
    none, for the images that the batches' rows count. Raises `ValueError` where fewer than two classes have labels."""

    Views = CropView
    needs_labels: ClassVar[bool] = True

    labels: Tensor
    shares: Tensor

    def __init__(self, encoder: Encoder, labels: Tensor) -> None:
        super().__init__()
        found = labels[labels != NO_LABEL].unique()
        if len(found) < 2:
            raise ValueError(
                f"supervised learns labels, and the images to train on have {len(found)} classes; leave it out of "
                "run.methods, or name labelled images in data.source or data.probe_source"
            )
        self.encoder, self.classifier = encoder, nn.Linear(encoder.dim, int(found.max()) + 1)
        self.register_buffer("labels", labels, persistent=False)
        counts = labels[labels != NO_LABEL].bincount(minlength=self.classifier.out_features)
        self.register_buffer("shares", counts / counts.sum(), persistent=False)

    def training_step(self, batch: Batch) -> Losses:
        (view,) = batch.views
        logits, labels = self.classifier(self.encoder(view)).float(), self.labels[batch.rows]
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        loss = F.cross_entropy(logits, labels, ignore_index=NO_LABEL)
        return {"loss": loss, "accuracy": accuracy, **chance_level(labels, self.shares)}

    def choices(self, images: int) -> Choices:
        return Choices(self.classifier.out_features, "classes")

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        return {"shown": batch.views[0]}
