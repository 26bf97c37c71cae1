"""What an adaptation method is: a module that learns the source's classes and looks at a target without labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sslflow.adaptation.task import UNKNOWN
from sslflow.networks.heads import Prototypes
from sslflow.settings import by_name

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Pair:
    """What a step sees: labelled inputs of the source and inputs of the target without labels; views of images, or
    features that were worked out before."""

    source: Tensor
    labels: Tensor
    """Class of each input of the source, int64 `(n,)`."""
    target: Tensor
    rows: Tensor
    """Which of the target's images they are, int64 `(m,)`."""
    progress: float
    """Share of the steps that are done, from 0 to 1."""


@dataclass(frozen=True)
class Judged:
    """What an adapter makes of images."""

    probabilities: Tensor
    """Of the source's classes, float32 `(n, classes)`."""
    unknownness: Tensor
    """Float32 `(n,)`, higher for what is rather of no class of the source, in [0, 1]."""
    threshold: float
    """Images of more unknownness are rejected; chosen without any label of the target."""
    notes: dict[str, float] = field(default_factory=dict)
    """What the threshold rests on, for the record."""

    @property
    def classes(self) -> Tensor:
        """The most probable class, int64 `(n,)`."""
        return self.probabilities.argmax(dim=1)

    @property
    def decisions(self) -> Tensor:
        """The most probable class, or `UNKNOWN`, int64 `(n,)`."""
        return torch.where(self.unknownness > self.threshold, UNKNOWN, self.classes)


class Adapter(nn.Module, ABC):
    """A way to carry classes over to another domain. It owns every trainable tensor, and all that it remembers of the
    target. `body` turns inputs into features `(n, dim)`: an encoder, or a small layer on frozen features; `classes`
    counts the source's classes, `targets` the target's images."""

    domain_norm: bool = False
    """Whether, when judging, BatchNorm takes the statistics of the domain that is judged."""

    gated: bool = False
    """Whether it has the settings `open` and `closed`, bars of the evidence that something is unknown."""

    def __init__(self, body: nn.Module, dim: int, classes: int, targets: int) -> None:
        super().__init__()
        self.body, self.classifier = body, Prototypes(dim, classes)
        self.classes, self.targets = classes, targets

    @abstractmethod
    def training_step(self, pair: Pair) -> Losses:
        """`{"loss": scalar to minimise, …scalars worth logging}`."""

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step: the place where a memory moves."""

    def start(self, source: Tensor, labels: Tensor, target: Tensor) -> None:
        """Called before the first step with the features of all images of the source, `(m, dim)`, its labels `(m,)`,
        and the features of all images of the target, `(targets, dim)`."""

    @abstractmethod
    def judge(self, features: Tensor) -> Judged:
        """What it makes of features `(n, dim)` of a domain's images; one image's verdict may depend on the others."""


def names() -> list[str]:
    """All adaptation methods: the files in `sslflow/adaptation/`."""
    return by_name.names("sslflow.methods.adaptation")


def find(name: str) -> type[Adapter]:
    """The class in `sslflow/adaptation/<name>.py`. Raises `ValueError` with a suggestion for an unknown name."""
    return by_name.find("sslflow.methods.adaptation", name, Adapter, "adaptation method")


def entropy_share(probabilities: Tensor) -> Tensor:
    """Entropy of probabilities `(n, k)` as a share of ln k, the most that there is: `(n,)` in [0, 1]."""
    entropy = -torch.special.xlogy(probabilities, probabilities).sum(dim=1)
    return (entropy / torch.tensor(float(probabilities.shape[1])).log()).clamp(0, 1)
