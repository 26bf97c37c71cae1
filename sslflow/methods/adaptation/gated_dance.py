"""DANCE that asks first whether there is anything unknown, and rejects by what unknown images would look like."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.adaptation.has_unknown import CERTAIN, Bars, Finding, Openness, look_for_unknown
from sslflow.adaptation.memory import Memory, averaged, entropy_separation, neighbourhood_entropy
from sslflow.adaptation.method import Adapter, Judged, Losses, Pair, entropy_share
from sslflow.adaptation.threshold import HALF, NOTHING, best_expected, without_best
from sslflow.settings.params import Count, Fraction, NonNegative, Positive

Unknown = Literal["maybe", "none", "some"]
TOLD = {"none": Openness.CLOSED, "some": Openness.OPEN}


class GatedDANCE(Adapter):
    """DANCE (arXiv:2002.07953) behind a question: does the target hold anything unknown?

    Where it does, images move to classes or neighbours and entropies to low or high, as in DANCE; an image is rejected
    above the threshold that is best by what is to be expected. Where it does not, images move to classes or neighbours,
    and nothing is rejected. Where it can't be told, the source alone is trained on, and no more is rejected than above
    half of the largest entropy: then it does what doing nothing would do, or rejects less.

    What differs from DANCE besides: the share `first` of the run is the source's alone, the memory is full from the
    start, BatchNorm's statistics are of each domain, the margin is in proportion to the largest entropy, and an image's
    class is what its nearest neighbours in the target agree on, unless the features are too weak for that: where the
    question has no answer and most classes are uncertain.

    Where somebody knows the answer, `unknown` says so, and the question isn't asked: `none` or `some` of the target's
    images are of classes that the source lacks; `maybe`: ask.

    Settings: `temperature`, by which cosines are divided; `weight` of the terms on the target; `margin` around half of
    the largest entropy in which an entropy is left alone, as a share of the largest; `neighbours` whose classes are
    averaged, the image included; `first`; `open` and `closed`, between which evidence leaves the question open.
    """

    domain_norm = True
    gated = True

    seen: Tensor
    """Which `Openness` was found, with how much evidence, and the mean entropy; NaN before."""

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
        unknown: Unknown = "maybe",
        open: NonNegative = 1.5,
        closed: NonNegative = 0.15,
    ) -> None:
        super().__init__(body, dim, classes, targets)
        self.memory = Memory(targets, dim)
        self.temperature, self.weight, self.margin = temperature, weight, margin
        self.neighbours, self.first = neighbours, first
        if closed > open:
            raise ValueError(
                f"gated_dance: closed is {closed:g}, open {open:g}: expected closed at most as high as open"
            )
        self.unknown, self.bars = unknown, Bars(open, closed)
        self.register_buffer("seen", torch.full((3,), torch.nan))

    def start(self, source: Tensor, labels: Tensor, target: Tensor) -> None:
        self.memory.put(torch.arange(self.targets, device=target.device), target)
        if self.unknown == "maybe":
            settings = self.classes, self.temperature, self.neighbours, self.bars
            found = look_for_unknown(source, labels, target, *settings)
        else:
            found = Finding(TOLD[self.unknown], 0.0, 0.0)
        self.seen = target.new_tensor([float(found.openness), found.evidence, found.entropy])

    def training_step(self, pair: Pair) -> Losses:
        known = F.cross_entropy(self.logits(self.body(pair.source)), pair.labels)
        features = F.normalize(self.body(pair.target), dim=1)
        self.memory.notice(pair.rows, features)
        openness = int(self.seen[0])
        if pair.progress < self.first or openness == Openness.UNSURE:
            return {"loss": known, "known": known}
        logits = self.logits(features)
        neighbours = neighbourhood_entropy(features, logits, self.memory.features, pair.rows, self.temperature)
        losses = {"loss": known + self.weight * neighbours, "known": known, "neighbours": neighbours}
        if openness == Openness.OPEN:
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
        openness, evidence, entropy = self.seen.tolist()
        probabilities = self.logits(features).softmax(dim=1)
        unknownness = entropy_share(probabilities)
        expected = best_expected(unknownness, without_best(probabilities))
        threshold = {
            Openness.CLOSED: NOTHING,
            Openness.UNSURE: max(expected, HALF),
            Openness.OPEN: expected,
        }[Openness(int(openness))]
        if openness != Openness.UNSURE or entropy < CERTAIN:
            probabilities = averaged(probabilities, features, self.neighbours)
        notes = {"openness": openness, "evidence": evidence, "entropy": entropy, "expected_threshold": expected}
        return Judged(probabilities, unknownness, threshold, notes)
