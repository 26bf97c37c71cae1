"""Clusters that hold two kinds, and pairs of clusters that are one.

Each cluster is halved by K-means. What lies between two halves of one cluster, and what between two clusters that are
neighbours, measures the other: halves that are as far apart as neighbours are look like two clusters, neighbours that
are as near as halves look like one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.clustering.kmeans import TooFewPointsError, assign, kmeans
from sslflow.runtime.rng import permutation

LOOKED_AT = 2000
"""Images of a cluster, at most, that are halved."""
FEWEST = 4
"""Clusters below which nothing is said of what is usual, and images below which a cluster isn't halved."""


@dataclass(frozen=True)
class Divisions:
    """Distances between means, by cluster; NaN where there is none."""

    halves: np.ndarray
    """From one half of the cluster to the other, `(clusters,)`."""
    nearest: np.ndarray
    """Number of the nearest other cluster, −1 for an empty one, int64 `(clusters,)`."""
    apart: np.ndarray
    """From the cluster to that one, `(clusters,)`."""
    two: list[int]
    """Clusters whose halves are further apart than is usual among neighbours, the furthest first."""
    one: list[tuple[int, int]]
    """Pairs of clusters that are nearer than is usual among halves, the nearest first."""


@torch.no_grad()
def divisions(points: Tensor, cluster: Tensor, clusters: int, seed: int) -> Divisions:
    """Look at `points` `(n, dim)`, of length 1 where direction is what counts, that are in `cluster`, int64 `(n,)`."""
    halves = np.full(clusters, np.nan)
    sizes = torch.bincount(cluster, minlength=clusters)
    means = torch.zeros(clusters, points.shape[1], dtype=points.dtype, device=points.device)
    means = means.index_add_(0, cluster, points) / sizes.clamp(min=1)[:, None]
    for number in (sizes >= FEWEST).nonzero()[:, 0].tolist():
        rows = (cluster == number).nonzero()[:, 0]
        rows = rows[permutation(len(rows), seed, "halves", number)[:LOOKED_AT].to(rows.device)]
        halves[number] = _halved(points[rows], seed)
    filled = sizes > 0
    table = torch.cdist(means.double(), means.double())
    table[:, ~filled] = table[~filled] = torch.inf
    table.fill_diagonal_(torch.inf)
    apart, nearest = (column.cpu().numpy() for column in table.min(dim=1))
    alone = ~np.isfinite(apart)
    apart, nearest = np.where(alone, np.nan, apart), np.where(alone, -1, nearest)
    two: list[int] = []
    one: list[tuple[int, int]] = []
    if int(filled.sum()) >= FEWEST and np.isfinite(halves).any():
        usual_apart, usual_halves = np.nanmedian(apart), np.nanmedian(halves)
        two = [number for number in np.argsort(-np.nan_to_num(halves)).tolist() if halves[number] > usual_apart]
        own = table.cpu().numpy()
        close = np.argwhere(np.triu(own < usual_halves, 1)).tolist()
        one = sorted(((a, b) for a, b in close), key=lambda pair: float(own[pair]))
    return Divisions(halves, nearest, apart, two, one)


def _halved(points: Tensor, seed: int) -> float:
    """Distance between the means of two halves; 0 where all points are the same."""
    try:
        found = kmeans(points, seed, clusters=2, metric="euclidean", restarts=1, iterations=20)
    except TooFewPointsError:
        return 0.0
    half = assign(points, found.centroids, "euclidean")[0] == 0
    return float((points[half].mean(dim=0) - points[~half].mean(dim=0)).norm())
