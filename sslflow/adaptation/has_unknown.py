"""Whether a target holds images of classes that the source lacks: seen, not seen, or not to be told.

A small classifier learns one half of the source and judges the other half and the target. Two signs must agree that
something is unknown: the target's entropies are of two kinds, the higher ones such as unknown images would have; and
the target leaves the classifier far less certain than the source's own other half does. Weak features and a large
shift give either sign alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.adaptation.memory import averaged
from sslflow.adaptation.method import entropy_share
from sslflow.adaptation.threshold import FLOOR, without_best
from sslflow.networks.heads import Prototypes

FEWEST = 10
"""Images without which there is no telling one kind from two: two for each of the five numbers of the mixture."""
CERTAIN = 0.25
"""Mean entropy of the target, as a share of the largest, above which features are too weak to say that nothing is
unknown."""
SURE = 0.02
"""The source's mean entropy counts as at least this: a ratio of next to nothing to next to nothing says nothing."""
STEPS = 100
BATCH = 36
RATE = 0.03


@dataclass(frozen=True)
class Bars:
    """Of the evidence: from `open` on something is unknown; below `closed` nothing is, where the target's mean entropy
    is also below `CERTAIN`."""

    open: float = 1.5
    closed: float = 0.15


class Openness(IntEnum):
    """What was seen of unknown images."""

    CLOSED = 0
    UNSURE = 1
    OPEN = 2


@dataclass(frozen=True)
class Finding:
    """What the signs were, and what follows."""

    openness: Openness
    evidence: float
    """The product of the signs: how much the entropies are of two kinds, and how many times they are the source's."""
    entropy: float
    """Mean of the target's, as a share of the largest."""


def look_for_unknown(
    source: Tensor,
    labels: Tensor,
    target: Tensor,
    classes: int,
    temperature: float,
    neighbours: int,
    bars: Bars = Bars(),
) -> Finding:
    """Judge by features of the source `(m, dim)` with their `labels` `(m,)` and of the target `(n, dim)`.

    With fewer than three classes, or fewer than ten images of the target or of the source's second half, nothing can
    be told. The same features always give the same finding.
    """
    second = second_half(labels)
    if classes < 3 or len(target) < FEWEST or int(second.sum()) < FEWEST:
        return Finding(Openness.UNSURE, 0.0, 1.0)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        judge = _learned(source[~second], labels[~second], classes, temperature)
    with torch.no_grad():
        ours = entropy_share(judge(source[second]))
        probabilities = judge(target)
        entropy = entropy_share(probabilities)
        smooth = averaged(probabilities, target, neighbours)
        two_kinds = evidence(entropy_share(smooth), without_best(smooth))
        found = two_kinds * float(entropy.mean() / ours.mean().clamp_min(SURE))
    mean = float(entropy.mean())
    if found >= bars.open:
        return Finding(Openness.OPEN, found, mean)
    closed = found < bars.closed and mean < CERTAIN
    return Finding(Openness.CLOSED if closed else Openness.UNSURE, found, mean)


def second_half(labels: Tensor) -> Tensor:
    """Every second image of each class, bool `(m,)`; a class with one image has none."""
    place = torch.empty_like(labels)
    for number in labels.unique():
        here = (labels == number).nonzero().flatten()
        place[here] = torch.arange(len(here), device=labels.device)
    return place % 2 == 1


def evidence(entropy: Tensor, simulated: Tensor) -> float:
    """How much speaks for two kinds of images, known and unknown, among those with the entropies `(n,)`, at least 0.

    The product of the share that the unknown can have, by the images above the median of the simulated entropies, and
    of how much better two normal distributions describe the entropies' logarithms than one does (BIC, per image).
    """
    from sklearn.mixture import GaussianMixture  # a second to load, which no check of settings needs

    if len(entropy) < FEWEST:
        return 0.0
    share = 2 * float((entropy > simulated.median()).float().mean())
    logs = entropy.clamp_min(FLOOR).log().double().cpu().numpy()[:, None]
    if np.ptp(logs) < FLOOR:
        return 0.0
    one, two = (GaussianMixture(parts, n_init=parts, random_state=0).fit(logs).bic(logs) for parts in (1, 2))
    return share * max(float(one - two) / len(logs), 0.0)


class _Judge(torch.nn.Module):
    def __init__(self, dim: int, classes: int, temperature: float) -> None:
        super().__init__()
        self.change, self.prototypes = torch.nn.Linear(dim, dim, bias=False), Prototypes(dim, classes)
        torch.nn.init.zeros_(self.change.weight)
        # Long directions turn slowly: after so few steps the judge is still cautious, as the bars want it.
        torch.nn.init.normal_(self.prototypes.weight)
        self.temperature = temperature

    def logits(self, features: Tensor) -> Tensor:
        return self.prototypes(features + self.change(features)) / self.temperature

    def forward(self, features: Tensor) -> Tensor:
        return self.logits(features).softmax(dim=1)


def _learned(features: Tensor, labels: Tensor, classes: int, temperature: float) -> _Judge:
    """A classifier after a short training, every class as often as any other; as `adapt` trains on frozen features."""
    judge = _Judge(features.shape[1], classes, temperature).to(features.device)
    updates = torch.optim.SGD(
        [
            {"params": list(judge.prototypes.parameters()), "lr": RATE},
            {"params": list(judge.change.parameters()), "lr": 0.3 * RATE},
        ],
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )
    weights = 1 / labels.bincount(minlength=classes).float()[labels].cpu()
    for _ in range(STEPS):
        rows = weights.multinomial(BATCH, replacement=True).to(features.device)
        updates.zero_grad()
        F.cross_entropy(judge.logits(features[rows]), labels[rows]).backward()
        updates.step()
    return judge
