"""DANCE: every target image moves to a class or to its neighbours, its entropy to low or high (arXiv:2002.07953)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.adaptation.memory import Memory, entropy_separation, neighbourhood_entropy
from sslflow.adaptation.method import Adapter, Judged, Losses, Pair, entropy_share
from sslflow.settings.params import NonNegative, Positive


class DANCE(Adapter):
    """As published. Images whose entropy is more than half of what it can be are rejected.

    Settings: `variant`: `official`, what the authors' code does, or `paper`, what the text says; `temperature`, by
    which cosines are divided; `weight` of both terms on the target; `margin` around half of the largest entropy in
    which an entropy is left alone, in nats.

    The code differs from the text: BatchNorm's running statistics are shared by the domains instead of one for each;
    similarities that are left out count as −1 / temperature instead of nothing; prototypes are scaled to length 1
    before each step, and not after the last one. In both the memory starts with zeros, each of which counts as exp(0)
    until its image is seen.
    """

    def __init__(
        self,
        body: nn.Module,
        dim: int,
        classes: int,
        targets: int,
        *,
        variant: Literal["official", "paper"] = "official",
        temperature: Positive = 0.05,
        weight: NonNegative = 0.05,
        margin: NonNegative = 0.5,
    ) -> None:
        super().__init__(body, dim, classes, targets)
        self.memory = Memory(targets, dim)
        self.temperature, self.weight, self.margin = temperature, weight, margin
        self.official = variant == "official"
        self.hidden = -1 / temperature if self.official else -math.inf
        self.domain_norm = not self.official

    def training_step(self, pair: Pair) -> Losses:
        if self.official:
            with torch.no_grad():
                self.classifier.weight.copy_(F.normalize(self.classifier.weight, dim=1))
        known = F.cross_entropy(self.logits(self.body(pair.source)), pair.labels)
        features = F.normalize(self.body(pair.target), dim=1)
        logits = self.logits(features)
        self.memory.notice(pair.rows, features)
        neighbours = neighbourhood_entropy(
            features, logits, self.memory.features, pair.rows, self.temperature, self.hidden
        )
        separation = entropy_separation(logits, math.log(self.classes) / 2, self.margin)
        loss = known + self.weight * (neighbours + separation)
        return {"loss": loss, "known": known, "neighbours": neighbours, "separation": separation}

    def after_step(self, progress: float) -> None:
        self.memory.move()

    def logits(self, features: Tensor) -> Tensor:
        """Cosines over the temperature, `(n, classes)`; in the official variant the prototypes keep their length."""
        cosines = (
            F.normalize(features, dim=1) @ self.classifier.weight.T if self.official else self.classifier(features)
        )
        return cosines / self.temperature

    def judge(self, features: Tensor) -> Judged:
        probabilities = self.logits(features).softmax(dim=1)
        return Judged(probabilities, entropy_share(probabilities), threshold=0.5)
