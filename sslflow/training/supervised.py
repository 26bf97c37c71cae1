"""Learning labels, by any number of encoders: what controls of images and of clips share."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.splits import NO_LABEL
from sslflow.runtime.distributed import gather
from sslflow.training.method import Batch, Choices, Losses, Method, chance_level


class LearnsLabels(Method):
    """Each of its encoders, whose view is the one in the same place, learns the labels with a classifier of its own.
    Labels come in by the constructor: int64 `(images,)`, −1 where there is none, for what the batches' rows count."""

    advice: ClassVar[str]
    """What to do where there are no labels: `"leave it out"`."""

    labels: Tensor
    shares: Tensor

    def learn(self, labels: Tensor) -> None:
        """To be called by the constructor once the encoders are set. Raises `ValueError` where fewer than two classes
        have labels."""
        found = labels[labels != NO_LABEL].unique()
        if len(found) < 2:
            raise ValueError(
                f"supervised learns labels, and the examples to train on have {len(found)} classes; {self.advice}"
            )
        self.classes = int(found.max()) + 1
        self.classifiers = nn.ModuleList(nn.Linear(one.dim, self.classes) for one in self.encoders.values())
        self.register_buffer("labels", labels, persistent=False)
        counts = labels[labels != NO_LABEL].bincount(minlength=self.classes)
        self.register_buffer("shares", counts / counts.sum(), persistent=False)

    def training_step(self, batch: Batch) -> Losses:
        # Gathered, since one process may have more examples with labels than another.
        labels = gather(self.labels[batch.rows])
        parts = zip(self.classifiers, self.encoders.values(), batch.views, strict=True)
        told = [gather(classifier(encoder(view)).float()) for classifier, encoder, view in parts]
        losses = [F.cross_entropy(logits, labels, ignore_index=NO_LABEL) for logits in told]
        accuracies = [(logits.argmax(dim=1) == labels).float().mean() for logits in told]
        return {
            "loss": torch.stack(losses).mean(),
            "accuracy": torch.stack(accuracies).mean(),
            **chance_level(labels, self.shares),
        }

    def choices(self, images: int) -> Choices:
        return Choices(self.classes, "classes")
