"""Pseudo-labels: K-means on features, with as many clusters as there are classes, or points."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.clustering.kmeans import Clustering, Metric, TooFewPointsError, kmeans
from sslflow.settings.params import Count, Natural, NonNegative

WITHOUT_CLASSES = 10
"""Clusters where neither the settings nor classes say how many."""


def fit(
    features: Tensor,
    seed: int,
    classes: int,
    device: torch.device | None = None,
    *,
    clusters: Natural = 0,
    metric: Metric = "cosine",
    restarts: Count = 4,
    iterations: Count = 100,
    tolerance: NonNegative = 1e-6,
    minibatch_above: Count = 200_000,
    batch_size: Count = 8192,
) -> tuple[Clustering, Metric]:
    """K-means with as many clusters as there are classes (10 without classes) where `clusters` is 0, or with as many as
    there are distinct features where these are fewer; a line says so. The metric comes back with the clustering."""
    wanted = clusters or classes or WITHOUT_CLASSES

    def attempt(count: int) -> Clustering:
        return kmeans(
            features, seed, device, clusters=count, metric=metric, restarts=restarts, iterations=iterations,
            tolerance=tolerance, minibatch_above=minibatch_above, batch_size=batch_size,
        )  # fmt: skip

    try:
        return attempt(wanted), metric
    except TooFewPointsError as error:
        print(f"pseudolabel  {error.distinct} distinct features: {error.distinct} clusters instead of {wanted}")
        return attempt(error.distinct), metric
