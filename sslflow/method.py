"""What a pretraining method is: a module that turns a batch of views into a loss."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sslflow.encoder import Encoder
from sslflow.params import closest
from sslflow.views import Views

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What a method sees of a step: views of the same images in the same order, and the progress of the run; no
    labels."""

    views: tuple[Tensor, ...]
    """Each float, normalised, `(images, channels, height, width)`."""
    progress: float
    """Share of the steps that are done, from 0 to 1."""


class Method(nn.Module, ABC):
    """A way to train an encoder without labels. It owns every trainable tensor and every buffer that a checkpoint
    needs."""

    Views: ClassVar[Callable[..., Views]]
    """How its views are made: `Views(channels, image_size, mean, std, *, settings)`."""

    encoder: Encoder

    @abstractmethod
    def training_step(self, batch: Batch) -> Losses:
        """`{"loss": scalar to minimise, …scalars worth logging}`."""

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step: the place where a teacher or a queue moves."""


def names() -> list[str]:
    """All methods: the files in `sslflow/methods/`."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module("sslflow.methods").__path__))


def find(name: str) -> type[Method]:
    """The method class in `sslflow/methods/<name>.py`. Raises `ValueError` with a suggestion for a name that is
    unknown."""
    if name not in names():
        raise ValueError(f"there is no method '{name}'{closest(name, names())}")
    module = importlib.import_module(f"sslflow.methods.{name}")
    (method,) = (
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Method) and item.__module__ == module.__name__
    )
    return method
