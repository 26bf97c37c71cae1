"""DANCE that asks first whether there is anything unknown, and rejects by what unknown images would look like."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.adapter import Adapter, Judged, Losses, Pair, entropy_share
from sslflow.neighbourhood import Memory, averaged, entropy_separation, neighbourhood_entropy
from sslflow.params import Count, Fraction, NonNegative, Positive
from sslflow.rejection import GATE, HALF, NOTHING, best_expected, evidence, without_best


class GatedDANCE(Adapter):
    """DANCE (arXiv:2002.07953) in two parts. In the first, the share `first` of the run, a classifier of the source is
    trained. Then the target is looked at: is there anything unknown? In the second part images move to classes or
    neighbours as in DANCE, and where there is something unknown their entropies move to low or high; where there is
    not, nothing is rejected. What differs besides: the memory is full from the start, BatchNorm's statistics are of
    each domain, the margin is in proportion to the largest entropy, and an image's class is what its nearest neighbours
    in the target agree on.

    Settings: `temperature`, by which cosines are divided; `weight` of the terms on the target; `margin` around half of
    the largest entropy in which an entropy is left alone, as a share of the largest; `neighbours` whose classes are
    averaged, the image included; `first`.
    """

    domain_norm = True

    evidence: Tensor
    """What was found between the two parts; NaN before."""

    def __init__(
        self,
        body: nn.Module,
        dim: int,
        classes: int,
        targets: int,
        *,
        temperature: Positive = 0.05,
        weight: NonNegative = 0.05,
        margin: Fraction = 0.17,
        neighbours: Count = 6,
        first: Fraction = 0.5,
    ) -> None:
        super().__init__(body, dim, classes, targets)
        self.memory = Memory(targets, dim)
        self.temperature, self.weight, self.margin = temperature, weight, margin
        self.neighbours, self.first = neighbours, first
        self.register_buffer("evidence", torch.tensor(torch.nan))

    def start(self, features: Tensor) -> None:
        self.memory.put(torch.arange(self.targets, device=features.device), features)

    def training_step(self, pair: Pair) -> Losses:
        known = F.cross_entropy(self.logits(self.body(pair.source)), pair.labels)
        features = F.normalize(self.body(pair.target), dim=1)
        self.memory.notice(pair.rows, features)
        if pair.progress < self.first:
            return {"loss": known, "known": known}
        if self.evidence.isnan():
            self.evidence = self._evidence(self.memory.features)
        logits = self.logits(features)
        neighbours = neighbourhood_entropy(features, logits, self.memory.features, pair.rows, self.temperature)
        losses = {"loss": known + self.weight * neighbours, "known": known, "neighbours": neighbours}
        if self.evidence >= GATE:
            most = math.log(self.classes)
            separation = entropy_separation(logits, most / 2, self.margin * most)
            losses = {**losses, "loss": losses["loss"] + self.weight * separation, "separation": separation}
        return losses

    def after_step(self, progress: float) -> None:
        self.memory.move()

    def logits(self, features: Tensor) -> Tensor:
        """Cosines over the temperature, `(n, classes)`."""
        return self.classifier(features) / self.temperature

    def judge(self, features: Tensor) -> Judged:
        probabilities = self.logits(features).softmax(dim=1)
        unknownness, smooth = entropy_share(probabilities), averaged(probabilities, features, self.neighbours)
        found = self._evidence(features) if self.evidence.isnan() else self.evidence
        expected = best_expected(unknownness, without_best(probabilities))
        threshold = min(expected, HALF) if found >= GATE else NOTHING
        return Judged(smooth, unknownness, threshold, {"evidence": float(found), "expected_threshold": expected})

    @torch.no_grad()
    def _evidence(self, features: Tensor) -> Tensor:
        probabilities = self.logits(features).softmax(dim=1)
        smooth = averaged(probabilities, features, self.neighbours)
        return features.new_tensor(evidence(entropy_share(smooth), without_best(smooth)))
