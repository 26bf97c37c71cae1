"""OVANet: beside the classifier a yes or no for every class, learned against the hardest wrong class
(arXiv:2104.03344)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.adaptation.method import Adapter, Judged, Losses, Pair
from sslflow.settings.params import NonNegative


class OVANet(Adapter):
    """An image is rejected where the yes or no of its most probable class says no.

    As in the authors' code (github.com/VisionLearningGroup/OVANet, train.py), the one-vs-all loss is half the sum of
    its two terms, and the weights of each yes and of each no are scaled to length 1 before each step, and not after the
    last one; those of the classifier are not.

    Settings: `weight` of the entropy of all yes-or-no answers about target images, which is made small.
    """

    def __init__(self, body: nn.Module, dim: int, classes: int, targets: int, *, weight: NonNegative = 0.1) -> None:
        super().__init__(body, dim, classes, targets)
        self.classifier = nn.Linear(dim, classes, bias=False)
        self.open = nn.Linear(dim, 2 * classes, bias=False)
        self.weight = weight

    def training_step(self, pair: Pair) -> Losses:
        with torch.no_grad():
            self.open.weight.copy_(F.normalize(self.open.weight, dim=1))
        features = self.body(pair.source)
        known = F.cross_entropy(self.classifier(features), pair.labels)
        one_vs_all = hard_one_vs_all(self.answers(features), pair.labels)
        undecided = answer_entropy(self.answers(self.body(pair.target)))
        loss = known + one_vs_all + self.weight * undecided
        return {"loss": loss, "known": known, "one_vs_all": one_vs_all, "undecided": undecided}

    def answers(self, features: Tensor) -> Tensor:
        """Logits of no and yes for every class, `(n, 2, classes)`."""
        return self.open(features).unflatten(1, (2, self.classes))

    def judge(self, features: Tensor) -> Judged:
        probabilities = self.classifier(features).softmax(dim=1)
        no = self.answers(features).softmax(dim=1)[:, 0]
        unknownness = no.gather(1, probabilities.argmax(dim=1, keepdim=True)).squeeze(1)
        return Judged(probabilities, unknownness, threshold=0.5)


def hard_one_vs_all(answers: Tensor, labels: Tensor) -> Tensor:
    """Half the sum of the mean −log of the yes for the right class and of the mean −log of the no for the wrong class
    that it is hardest to say no to, of answers `(n, 2, classes)`: scalar."""
    logs = answers.log_softmax(dim=1)
    right = F.one_hot(labels, answers.shape[2]).bool()
    hardest = logs[:, 0].masked_fill(right, torch.inf).min(dim=1).values
    return -(logs[:, 1][right].mean() + hardest.mean()) / 2


def answer_entropy(answers: Tensor) -> Tensor:
    """Mean entropy of yes or no over all images and classes of answers `(n, 2, classes)`: scalar."""
    return -(answers.softmax(dim=1) * answers.log_softmax(dim=1)).sum(dim=1).mean()
