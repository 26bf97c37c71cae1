"""What a method's constructor asks for by name, left of `*`, and how it gets it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.depth import depth_facts, with_depth
from sslflow.data.formats import ImageFormat, TextFormat
from sslflow.data.splits import TRAIN
from sslflow.networks.saved import AnyEncoder, new_encoder
from sslflow.networks.starts import RANDOM
from sslflow.networks.text import TextEncoder
from sslflow.networks.weights import started
from sslflow.settings.params import Schemas
from sslflow.training.method import Method, find, kind_of
from sslflow.views.text import PairViews

M = TypeVar("M", bound=Method)
CAPTIONED = frozenset(("text_encoder", "tokens"))
"""What a method for images asks for that learns from captions."""
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


def own_schemas(name: str) -> Schemas:
    """Sections inside a method's block that belong to what it is given: its `text_encoder`."""
    asked = ingredients(find(name))
    return {f"methods.{name}.text_encoder": TextEncoder} if "text_encoder" in asked else {}


def example_rows(kind: type[Method], dataset: Dataset[Any]) -> np.ndarray:
    """The rows that a method is trained on: labelled ones, where it learns labels, and of images those with a
    caption, or a depth map, where it learns from these. Raises `ValueError` for fewer than two (a method that learns
    labels says so itself), and for data of another kind than the method's."""
    name = kind.__module__.rpartition(".")[2]
    if kind_of(kind) != dataset.format.kind:
        raise ValueError(
            f"{name} is a method for {kind_of(kind)}, and {dataset.folder} holds {dataset.format.kind}: set data.kind "
            "to what is to be prepared, and name methods for it in run.methods"
        )
    asked = ingredients(kind)
    learns_labels = "labels" in asked
    rows = dataset.labelled_rows(TRAIN) if learns_labels else dataset.pretraining_rows
    what = dataset.format.unit
    if CAPTIONED.intersection(asked) and dataset.format.kind == ImageFormat.kind:
        if "captions" not in dataset.beside:
            raise ValueError(f"{name} learns from captions, and there are none: name them in data.captions")
        rows, what = rows[dataset.column("captions", rows) > 0], "images with a caption"
    if "depth" in asked:
        depth_facts(dataset)
        rows, what = with_depth(dataset, rows), "images with a depth map"
    if isinstance(kind.Views, type) and issubclass(kind.Views, PairViews):
        _of_documents(name, dataset, rows)
    if len(rows) < 2 and not learns_labels:
        raise ValueError(f"pretraining needs at least two {what}, and there are {len(rows)}")
    return rows


def _of_documents(name: str, dataset: Dataset[Any], rows: np.ndarray) -> None:
    """Raises `ValueError` where no passage follows another, or there is no other document."""
    passages = np.unique(dataset.groups[rows], return_counts=True)[1]
    if len(passages) < 2 or passages.max() < 2:
        raise ValueError(
            f"{name} learns which passage follows another of the same document, and there are {len(passages)} "
            f"documents of {passages.max(initial=0)} passages at most: name documents of several passages each (in "
            ".jsonl the key document)"
        )


def text_of(dataset: Dataset[Any]) -> TextFormat:
    """What all passages of text, or all captions of images, have in common."""
    if isinstance(dataset.format, TextFormat):
        return dataset.format
    facts = dataset.beside["captions"]
    return TextFormat(facts["length"], facts["vocabulary"])


def of_examples(
    dataset: Dataset[Any],
    rows: np.ndarray,
    encoder: Mapping[str, Any],
    start: str = RANDOM,
    teacher: str = RANDOM,
    text_encoder: Mapping[str, Any] = MappingProxyType({}),
) -> Factories:
    """What there is for methods: an encoder with the settings given and random weights, or the weights of a start; the
    labels of the rows; how many examples they are; a teacher, an encoder with the weights of a start; what is known of
    text, and an encoder of captions with the settings given and random weights; what is known of depth maps, and an
    encoder of these with the settings of the first and random weights."""

    def from_weights(name: str, setting: str) -> AnyEncoder:
        if isinstance(dataset.format, TextFormat):
            raise ValueError(
                f"start.{setting}: existing weights are rows beside methods for text (run.controls, "
                f"run.language_controls), not where one starts; set it to {RANDOM}"
            )
        return started(name, dataset.format)

    def taught_by() -> AnyEncoder:
        if teacher == RANDOM:
            raise ValueError(
                "start.teacher is random, and nothing can be learned from random weights: set it to a name in starts"
            )
        return from_weights(teacher, "teacher")

    return {
        "encoder": lambda: new_encoder(dataset.format, encoder) if start == RANDOM else from_weights(start, "weights"),
        "labels": lambda: torch.from_numpy(dataset.labels[rows]),
        "images": lambda: len(rows),
        "teacher": taught_by,
        "tokens": lambda: text_of(dataset),
        "text_encoder": lambda: new_encoder(text_of(dataset), text_encoder),
        "depth": lambda: depth_facts(dataset),
        "depth_encoder": lambda: new_encoder(replace(dataset.format, channels=1), encoder),
    }
