"""What an audit of pseudo-labels looks at, and what it has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from sslflow.clustering.kmeans import Metric
from sslflow.clustering.points import CHUNK, no_centre
from sslflow.data.dataset import Dataset
from sslflow.data.splits import NO_LABEL
from sslflow.settings.params import Count, Natural

COLUMNS = {
    "clusters": (
        "cluster", "size", "share", "class", "purity", "silhouette", "confidence", "over_seeds", "over_rounds",
        "halves", "nearest", "apart", "found",
    ),
    "suspects": ("row", "path", "split", "label", "cluster", "class", "confidence", "stable", "reasons"),
    "numbers": ("clusters", "silhouette", "calinski_harabasz", "stability"),
    "reliability": ("confidence", "right", "low", "high", "images"),
    "to_label": ("path", "label", "cluster"),
}  # fmt: skip
"""Of each table; a name of a class is empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class AuditClusters:
    """K-means is done again `rounds` times; `sample` images are compared with one another; `to_label` random images go
    into a table to fill in."""

    rounds: Count = 5
    sample: Annotated[int, Ge(50)] = 2000
    to_label: Natural = 100


@dataclass
class Found:
    """What an audit has found."""

    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    """By name, with `COLUMNS`."""
    metrics: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""
    suggestion: str = ""
    """How many clusters there should be, and why."""


@dataclass(frozen=True)
class Known:
    """Features of the images, those that are finite, and their clusters."""

    dataset: Dataset
    features: Tensor
    """`(n, dim)`."""
    good: np.ndarray
    """Which rows' features are finite, bool `(n,)`."""
    fitted: np.ndarray
    """Rows that clusters are made of: never test images."""
    cluster: np.ndarray
    """int `(n,)`."""
    clusters: int
    metric: Metric

    @cached_property
    def centre(self) -> Tensor:
        """What points are looked at from: nothing for directions, else the mean."""
        if self.metric == "cosine":
            return no_centre(self.features)
        total = torch.zeros(self.features.shape[1], dtype=torch.float64, device=self.features.device)
        for start in range(0, len(self.fitted), CHUNK):
            total += self.features[self.fitted[start : start + CHUNK]].sum(dim=0, dtype=torch.float64)
        return (total / len(self.fitted)).float()


def class_of(dataset: Dataset, number: int) -> str:
    """Its name, empty for no class."""
    return dataset.classes[number] if number != NO_LABEL else ""


def digits(value: float) -> str:
    """To four digits, empty where it is not finite."""
    return f"{value:.4f}" if np.isfinite(value) else ""
