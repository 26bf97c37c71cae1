"""What a method's constructor asks for by name, left of `*`, and how it gets it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.depth import depth_facts, with_depth
from sslflow.data.formats import ImageFormat
from sslflow.data.splits import TRAIN
from sslflow.networks.encoder import Encoder
from sslflow.networks.starts import RANDOM
from sslflow.networks.weights import started
from sslflow.training.method import Method

M = TypeVar("M", bound=Method)
Factories = Mapping[str, Callable[[], Any]]
"""How each ingredient is made, by its name: only what a method asks for is made."""


def ingredients(kind: type[Method]) -> tuple[str, ...]:
    """Names of what the constructor is given besides its settings: `("encoder", "labels")`."""
    parameters = inspect.signature(kind).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)


def build(kind: type[M], factories: Factories, settings: Mapping[str, Any]) -> M:
    """The method with the ingredients that it asks for, made in its order, and the settings. Raises `ValueError` for
    an ingredient that can't be had."""
    names = ingredients(kind)
    unknown = [name for name in names if name not in factories]
    if unknown:
        raise ValueError(
            f"{kind.__name__} asks for {', '.join(unknown)}, and there is only {', '.join(factories)}: name what "
            "stands left of `*` in its constructor after one of these"
        )
    return kind(*(factories[name]() for name in names), **settings)


def image_rows(kind: type[Method], dataset: Dataset[ImageFormat]) -> np.ndarray:
    """The rows that a method of images is trained on: labelled ones, where it learns labels, those with a depth map,
    where it learns from depth. Raises `ValueError` for
    fewer than two (a method that learns labels says so itself)."""
    learns_labels = "labels" in ingredients(kind)
    rows = dataset.labelled_rows(TRAIN) if learns_labels else dataset.pretraining_rows
    if "depth" in ingredients(kind):
        depth_facts(dataset)
        rows = with_depth(dataset, rows)
    if len(rows) < 2 and not learns_labels:
        raise ValueError(f"pretraining needs at least two images, and there are {len(rows)}")
    return rows


def of_images(
    dataset: Dataset[ImageFormat],
    rows: np.ndarray,
    encoder: Mapping[str, Any],
    start: str = RANDOM,
    teacher: str = RANDOM,
) -> Factories:
    """What there is for methods of images: an encoder with the settings given and random weights, or the weights of a
    start; the labels of the rows; how many images they are; a teacher, an encoder with the weights of a start; what is
    known of all depth maps, and an encoder of these, with the same settings and random weights."""

    def taught_by() -> Encoder:
        if teacher == RANDOM:
            raise ValueError(
                "start.teacher is random, and nothing can be learned from random weights: set it to a name in starts"
            )
        return started(teacher, dataset.format)

    return {
        "encoder": lambda: (
            Encoder(dataset.format.channels, dataset.format.size, **encoder)
            if start == RANDOM
            else started(start, dataset.format)
        ),
        "labels": lambda: torch.from_numpy(dataset.labels[rows]),
        "images": lambda: len(rows),
        "teacher": taught_by,
        "depth": lambda: depth_facts(dataset),
        "depth_encoder": lambda: Encoder(1, dataset.format.size, **encoder),
    }
