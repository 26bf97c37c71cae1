"""K-means on features, on any device and over several processes that hold a part of the rows each.

k-means++ seeding with several candidates a draw (Arthur & Vassilvitskii 2007), then Lloyd's iterations, or, above a
size, mini-batches (Sculley 2010). Randomness is drawn by row number, counted over all processes in rank order, so
the result does not depend on how the rows are divided, but for the last bits of sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.clustering.points import CHUNK, Metric, Points, no_centre, not_finite, prepared, require_finite
from sslflow.runtime.distributed import all_reduce_sum
from sslflow.runtime.rng import generator
from sslflow.settings.params import Count, NonNegative

SEEDED_FROM = 10_000
"""Seeding looks at so many random rows, or at 20 for each cluster where that is more."""
SAME = 1e-6
"""Points that are closer than this share of their usual length count as one: it is what float32 can tell apart."""
CELLS, SMALLEST = 2**22, 256
"""On CPUs: distances at a time, and at least so many rows."""
POLISH = 2
"""Full iterations after mini-batches; they also fill clusters that no batch had a row for."""


class TooFewPointsError(ValueError):
    """More clusters were asked for than there are `distinct` points."""

    def __init__(self, clusters: int, distinct: int) -> None:
        self.distinct = distinct
        super().__init__(f"{clusters} clusters of {distinct} distinct points: ask for {distinct} clusters or fewer")


@dataclass(frozen=True)
class Clustering:
    """What `kmeans` found."""

    centroids: Tensor
    """float32 `(clusters, dim)`; of length 1 for the cosine metric."""
    inertia: float
    """Sum over all rows of the squared distance to the nearest centroid, or of 1 − cosine."""
    iterations: int
    """Of the restart that was kept."""
    reseeded: int
    """How often that restart moved a centroid without rows to the furthest point."""


@torch.no_grad()
def kmeans(
    features: Tensor,
    seed: int,
    *,
    clusters: Count,
    metric: Metric = "cosine",
    restarts: Count = 4,
    iterations: Count = 100,
    tolerance: NonNegative = 1e-6,
    minibatch_above: Count = 200_000,
    batch_size: Count = 8192,
) -> Clustering:
    """Cluster the rows of `features`, float `(n, dim)`; with several processes each passes its part of the rows.

    The best of `restarts` by inertia. Each takes at most `iterations` steps and ends earlier when the centroids'
    squared movement, summed, is at most `tolerance` times the mean squared distance to them. Above `minibatch_above`
    rows, each step but the last ones sees `batch_size` random rows. Raises `ValueError` where a feature is not finite
    and `TooFewPointsError` where distinct points are fewer than clusters.
    """
    points = Points(features, metric)
    best = None
    for restart in range(restarts):
        numbers = generator(seed, "kmeans", restart)
        centroids = _seed(points, clusters, numbers)
        steps, most = 0, iterations
        if points.total > minibatch_above:
            centroids = _minibatches(points, centroids, numbers, iterations, batch_size)
            steps, most = iterations, POLISH
        centroids, own_steps, reseeded = _lloyd(points, centroids, most, tolerance)
        inertia = _sums(points, centroids)[2]
        if best is None or inertia < best.inertia:
            best = Clustering(centroids + points.centre, inertia, steps + own_steps, reseeded)
    assert best is not None
    return best


@torch.no_grad()
def assign(features: Tensor, centroids: Tensor, metric: Metric = "cosine") -> tuple[Tensor, Tensor, Tensor]:
    """Nearest centroid of each row, int64 `(n,)`, the distance to it (Euclidean, or 1 − cosine) and the margin, float32
    `(n,)`: how much further the second nearest is, 0 for a single centroid. Raises `ValueError` where a feature is not
    finite."""
    require_finite(not_finite(features))
    centre = no_centre(centroids) if metric == "cosine" else centroids.mean(dim=0)
    found = []
    for chunk in features.split(CHUNK):
        table = _distances(prepared(chunk, metric, centre), centroids - centre, metric)
        distances, nearest = table.topk(min(2, len(centroids)), dim=1, largest=False)
        if metric == "euclidean":
            distances = distances.sqrt()
        found.append((nearest[:, 0], distances[:, 0], distances[:, -1] - distances[:, 0]))
    cluster, distance, margin = (torch.cat(column) for column in zip(*found, strict=True))
    return cluster, distance, margin


def _seed(points: Points, clusters: int, numbers: torch.Generator) -> Tensor:
    """Starting centroids by k-means++, from a sample where there are many points and it is varied enough."""
    size = max(SEEDED_FROM, 20 * clusters)
    if points.total > size:
        sample = points.some(torch.randint(points.total, (size,), generator=numbers))
        try:
            return _plus_plus(sample, clusters, numbers)
        except TooFewPointsError:
            pass  # Rare points may have been missed: look at all of them.
    return _plus_plus(points, clusters, numbers)


def _plus_plus(points: Points, clusters: int, numbers: torch.Generator) -> Tensor:
    """Each next centroid is the best of a few points drawn in proportion to the squared distance to the chosen."""
    candidates = 2 + int(math.log(clusters))
    length = torch.cat([chunk.square().sum(dim=1) for chunk in points.chunks()])
    same = SAME**2 * points.sum(length) / points.total
    chosen = points.at(torch.randint(points.total, (1,), generator=numbers))
    nearest = points.squared_distances(chosen)[:, 0]
    while len(chosen) < clusters:
        weights = nearest.where(nearest > same, 0)
        if not points.sum(weights):
            raise TooFewPointsError(clusters, len(chosen))
        drawn = points.at(points.draw(weights, torch.rand(candidates, generator=numbers, dtype=torch.float64)))
        after = torch.minimum(nearest[:, None], points.squared_distances(drawn))
        best = int(points.sum(after).argmin())
        chosen, nearest = torch.cat([chosen, drawn[best : best + 1]]), after[:, best]
    return chosen


def _lloyd(points: Points, centroids: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, int, int]:
    """Centroids after Lloyd's iterations, how many there were, and how many centroids were seeded anew."""
    reseeded = 0
    for step in range(1, iterations + 1):
        sums, counts, inertia = _sums(points, centroids)
        moved = _means(sums, counts, centroids, points.metric)
        empty = (counts == 0).nonzero()[:, 0].tolist()
        if empty:
            reseeded += _reseed(points, centroids, moved, empty)
        shift = float((moved - centroids).square().sum())
        centroids = moved
        if not empty and shift <= tolerance * inertia / points.total:
            return centroids, step, reseeded
    return centroids, iterations, reseeded


def _reseed(points: Points, centroids: Tensor, moved: Tensor, empty: list[int]) -> int:
    """Move the centroids without rows, in `moved`, each to the point that is then furthest from all others."""
    nearest = [_distances(chunk, centroids, points.metric).amin(dim=1) for chunk in points.chunks()]
    distances = torch.cat(nearest)
    for cluster in empty:
        point = points.at(points.furthest(distances))
        moved[cluster] = point[0]
        to_it = [_distances(chunk, point, points.metric)[:, 0] for chunk in points.chunks()]
        distances = torch.minimum(distances, torch.cat(to_it))
    return len(empty)


def _minibatches(points: Points, centroids: Tensor, numbers: torch.Generator, steps: int, batch_size: int) -> Tensor:
    """Centroids as the running means of the rows of random batches that came to them."""
    seen = torch.zeros(len(centroids), dtype=torch.float64, device=centroids.device)
    for _ in range(steps):
        batch = points.some(torch.randint(points.total, (batch_size,), generator=numbers))
        sums, counts, _ = _sums(batch, centroids)
        sums += centroids * seen[:, None]
        seen += counts
        centroids = _means(sums, seen, centroids, points.metric)
    return centroids


def _sums(points: Points, centroids: Tensor) -> tuple[Tensor, Tensor, float]:
    """Sum `(clusters, dim)` and number `(clusters,)` of each centroid's points, float64, and the inertia."""
    clusters, dim = centroids.shape
    sums = torch.zeros(clusters, dim + 2, dtype=torch.float64, device=centroids.device)
    find = None if sums.is_cuda else _Nearest(centroids, points.metric)
    for chunk, own in points.measured():
        if find is None:
            distance, nearest = _distances(chunk, centroids, points.metric).min(dim=1)
            # A product with the table of memberships: adding by index would not be repeatable on a GPU.
            members = F.one_hot(nearest, clusters).T.to(chunk.dtype)
            sums += members @ torch.cat([chunk, torch.ones_like(distance)[:, None], distance[:, None]], dim=1)
        else:
            distance, nearest = find(chunk, own)
            sums[:, :dim] += torch.zeros(clusters, dim).index_add_(0, nearest, chunk)
            sums[:, dim] += torch.bincount(nearest, minlength=clusters)
            sums[0, dim + 1] += distance.sum(dtype=torch.float64)
    all_reduce_sum(sums)
    return sums[:, :dim], sums[:, dim], float(sums[:, dim + 1].sum())


class _Nearest:
    """On a CPU: the nearest of the centroids, for one chunk of points after the other. The table of products is made
    once: to ask for its memory each time takes a fifth of the whole."""

    def __init__(self, centroids: Tensor, metric: Metric) -> None:
        # A point's own length doesn't change which centroid is nearest.
        offsets = 0.5 * centroids.square().sum(dim=1)
        self._offsets = torch.full_like(offsets, 0.5) if metric == "cosine" else offsets
        self._centroids, self._metric = centroids, metric
        self._table = torch.empty(min(CHUNK, max(SMALLEST, CELLS // len(centroids))), len(centroids))

    def __call__(self, points: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the nearest centroid, as `_distances` has it, and its number, `(points,)` each; `lengths`:
        squared lengths of the points."""
        least, nearest = torch.empty(len(points)), torch.empty(len(points), dtype=torch.int64)
        for start in range(0, len(points), len(self._table)):
            here = slice(start, start + len(self._table))
            some = points[here]
            table = torch.addmm(self._offsets, some, self._centroids.T, alpha=-1, out=self._table[: len(some)])
            table.numpy().argmin(axis=1, out=nearest[here].numpy())  # several times as fast as torch's
            torch.gather(table, 1, nearest[here, None], out=least[here, None])
        distance = least + 0.5 if self._metric == "cosine" else 2 * least + lengths
        return distance.clamp_(min=0), nearest


def _means(sums: Tensor, counts: Tensor, centroids: Tensor, metric: Metric) -> Tensor:
    """Centroids from sums and numbers of points; those without points stay."""
    means = (sums / counts.clamp(min=1)[:, None]).float()
    if metric == "cosine":
        means = F.normalize(means, dim=1)
    return torch.where(counts[:, None] > 0, means, centroids)


def _distances(points: Tensor, centroids: Tensor, metric: Metric) -> Tensor:
    """Squared distances, or 1 − cosine, `(points, centroids)`."""
    products = points @ centroids.T
    if metric == "cosine":
        return (1 - products).clamp_(min=0)
    return (points.square().sum(dim=1, keepdim=True) - 2 * products + centroids.square().sum(dim=1)).clamp_(min=0)
