"""What a pretraining method is: a module that turns a batch of views into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.settings import by_name
from sslflow.settings.params import closest
from sslflow.settings.sections import KINDS
from sslflow.training.choices import Choices as Choices
from sslflow.views.images import Views

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What a method sees of a step: views of the same images in the same order, and the progress of the run; no
    labels."""

    views: tuple[Tensor, ...]
    """What the method's `Views` made, `(images, …)` each."""
    rows: Tensor
    """Which of the run's images they are, int64 `(images,)`."""
    progress: float
    """Share of the steps that are done, from 0 to 1."""


@dataclass(frozen=True)
class Pool:
    """All images of a run, for a method that looks at them between epochs."""

    size: int
    """Images over all processes."""
    mine: Tensor
    """Which of them are this process's to look at, int64; each image is one process's."""
    features: Callable[[], Tensor]
    """Their features by the encoder as it is now, without augmentation, `(len(mine), dim)`."""
    seed: int
    """Of whatever is drawn by chance; another one for each epoch, the same in all processes."""


class Method(nn.Module, ABC):
    """A way to train an encoder without labels. It owns every trainable tensor and every buffer that a checkpoint
    needs. What differs by chance from image to image is drawn by its views, never in a step; what concerns a whole
    step, such as directions to look along, may be drawn there from a generator that follows from the batch's `progress`
    alone, and so is the same in all processes and in a resumed run.

    Its constructor says by name, left of `*`, what it is given besides settings: `encoder`; `labels`, int64 `(images,)`
    of the run's images, −1 where there is none; `images`, how many they are; `teacher`, an encoder with weights that
    exist; `text_encoder`, an encoder of captions; `tokens`, the `TextFormat` of text or captions; methods for clips
    also `sound_encoder` and `statistics`."""

    Views: ClassVar[Callable[..., Views]]
    """How its views are made: `Views(format, *, settings)`."""
    additive: ClassVar[bool] = False
    """Whether its loss is a mean over examples, each of which it looks at alone (but for BatchNorm): then a batch may
    be seen in parts."""
    moving_targets: ClassVar[bool] = False
    """Whether the answers that its loss asks for are its own and change while it learns: then the loss needn't fall."""

    encoder: Encoder

    @property
    def encoders(self) -> dict[str, Encoder]:
        """What is worth keeping of it, by names of files."""
        return {"picture": self.encoder}

    @abstractmethod
    def training_step(self, batch: Batch) -> Losses:
        """`{"loss": scalar to minimise, …scalars worth logging}`.

        Where answers are not equally likely, `chance_loss` among them is what the best constant answer, the same for
        every image, costs on this batch, and `chance_accuracy` its accuracy: see `chance_level`."""

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step: the place where a teacher or a queue moves."""

    def start_epoch(self, pool: Pool) -> list[nn.Parameter]:
        """Called before the first step of every epoch. Returns the parameters that it has set anew, whose history the
        optimiser forgets."""
        return []

    def order(self, size: int, numbers: torch.Generator) -> Tensor:
        """Which images an epoch sees, in which order, int64 `(size,)`; each one once, unless a method has reasons."""
        return torch.randperm(size, generator=numbers)

    def choices(self, images: int) -> Choices | None:
        """What its loss chooses among in a step of so many images over all processes; None for other kinds of loss."""
        return None

    def projections(self, features: Tensor) -> Tensor | None:
        """What its loss sees of features `(n, dim)`, for the diagnostics: by its `projector`, if it has one. None where
        the loss sees the features themselves, or something else."""
        projector = getattr(self, "projector", None)
        return None if projector is None else projector(features)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """What the method makes of a batch, for people to look at: columns by title, normalised images
        `(rows, c, side, side)`. Nothing without a picture of its own: then it is shown which view it takes for a view's
        partner."""
        return {}


@torch.no_grad()
def chance_level(answers: Tensor, shares: Tensor) -> Losses:
    """`chance_loss` and `chance_accuracy` of the best constant answer: cross entropy and accuracy on the batch's right
    `answers`, int64 `(n,)`, −1 where there is none, of always answering with their `shares` in the run, `(k,)`."""
    logs = shares.log().expand(len(answers), -1)
    return {
        "chance_loss": F.nll_loss(logs, answers, ignore_index=-1),
        "chance_accuracy": (answers == shares.argmax()).float().mean(),
    }


def names(*kinds: str) -> list[str]:
    """All methods of the kinds of data, or of all kinds: the files in `sslflow/methods/images/` and beside it."""
    return [name for kind in kinds or KINDS for name in by_name.names(f"sslflow.methods.{kind}")]


def find(name: str) -> type[Method]:
    """The method class in `sslflow/methods/<kind of data>/<name>.py`. Raises `ValueError` with a suggestion for a name
    that is unknown."""
    for kind in KINDS:
        if name in by_name.names(f"sslflow.methods.{kind}"):
            return by_name.find(f"sslflow.methods.{kind}", name, Method, "method")
    raise ValueError(f"there is no method '{name}'{closest(name, names())}")


def kind_of(method: type[Method]) -> str:
    """The kind of data that a method is for: the folder that its file lies in."""
    return method.__module__.split(".")[-2]
