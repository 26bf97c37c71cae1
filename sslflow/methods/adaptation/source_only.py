"""Source only: a classifier of the source's images, as it is, on the target: what adaptation has to beat."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.adaptation.method import Adapter, Judged, Losses, Pair, entropy_share
from sslflow.settings.params import Positive


class SourceOnly(Adapter):
    """Images whose entropy is more than half of what it can be are rejected, as in DANCE (arXiv:2002.07953).

    Settings: `temperature`, by which the classifier's cosines are divided.
    """

    def __init__(self, body: nn.Module, dim: int, classes: int, targets: int, *, temperature: Positive = 0.05) -> None:
        super().__init__(body, dim, classes, targets)
        self.temperature = temperature

    def training_step(self, pair: Pair) -> Losses:
        return {"loss": F.cross_entropy(self.classifier(self.body(pair.source)) / self.temperature, pair.labels)}

    def judge(self, features: Tensor) -> Judged:
        probabilities = (self.classifier(features) / self.temperature).softmax(dim=1)
        return Judged(probabilities, entropy_share(probabilities), threshold=0.5)
