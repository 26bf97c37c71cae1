"""DIET: tell which of all images a view is of, each image a class of its own (arXiv:2302.10260)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.settings.params import Count, Fraction
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.images import TwoViews


class DIET(Method):
    """A linear classifier on the features tells the images apart: no projector, no pairs, no teacher. The loss is the
    cross entropy less that of the best answer, so that 0 is as low as it can get.

    Settings: `smoothing` of the labels, 0.8 from random weights, 0.3 from weights that exist; `most`, the largest
    number of classes: where there are more images, several share one.
    """

    Views = TwoViews
    additive = True

    def __init__(self, encoder: Encoder, images: int, *, smoothing: Fraction = 0.8, most: Count = 100_000) -> None:
        super().__init__()
        self.encoder, self.smoothing = encoder, smoothing
        self.classes = min(images, most)
        self.classifier = nn.Linear(encoder.dim, self.classes, bias=False)

    def training_step(self, batch: Batch) -> Losses:
        answers = classes_of(batch.rows, self.classes).repeat(len(batch.views))
        logits = self.classifier(self.encoder(torch.cat(batch.views))).float()
        entropy = smoothed_entropy(self.classes, self.smoothing)
        return {
            "loss": F.cross_entropy(logits, answers, label_smoothing=self.smoothing) - entropy,
            "accuracy": (logits.argmax(dim=1) == answers).float().mean(),
            "chance_loss": logits.new_tensor(math.log(self.classes) - entropy),
            "chance_accuracy": logits.new_tensor(1 / self.classes),
        }

    def choices(self, images: int) -> Choices:
        return Choices(self.classes, "classes of images")


def smoothed_entropy(classes: int, smoothing: float) -> float:
    """Entropy of a label that has kept 1 − smoothing, while the rest is spread evenly over all classes."""
    other = smoothing / classes
    right = 1 - smoothing + other
    return -right * math.log(right) - ((classes - 1) * other * math.log(other) if smoothing else 0.0)


def classes_of(rows: Tensor, classes: int) -> Tensor:
    """The classes of images by their rows, int64 `(n,)` both: the rows' remainders, so that each class has as many
    images as any other, or one more, and neighbours, which are often alike, never share one."""
    return rows % classes
