"""K-means on features, on any device and over several processes that hold a part of the rows each.

k-means++ seeding with several candidates a draw (Arthur & Vassilvitskii 2007), then Lloyd's iterations, or, above a
size, mini-batches (Sculley 2010). Randomness is drawn by row number, counted over all processes in rank order, so
the result does not depend on how the rows are divided, but for the last bits of sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.runtime.distributed import all_reduce_sum, gather, rank
from sslflow.runtime.rng import generator
from sslflow.settings.params import Count, NonNegative

Metric = Literal["euclidean", "cosine"]

CHUNK = 4096
"""Rows at a time: the table of distances is this many rows high."""
SEEDED_FROM = 10_000
"""Seeding looks at so many random rows, or at 20 for each cluster where that is more."""
SAME = 1e-6
"""Points that are closer than this share of their usual length count as one: it is what float32 can tell apart."""
KEPT = 2**28
"""Bytes up to which seeding keeps its points in float64, rather than convert them for each centroid."""
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
    points = _Points(features, metric)
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
    _require_finite(_not_finite(features))
    centre = _no_centre(centroids) if metric == "cosine" else centroids.mean(dim=0)
    found = []
    for chunk in features.split(CHUNK):
        table = _distances(_prepared(chunk, metric, centre), centroids - centre, metric)
        distances, nearest = table.topk(min(2, len(centroids)), dim=1, largest=False)
        if metric == "euclidean":
            distances = distances.sqrt()
        found.append((nearest[:, 0], distances[:, 0], distances[:, -1] - distances[:, 0]))
    cluster, distance, margin = (torch.cat(column) for column in zip(*found, strict=True))
    return cluster, distance, margin


class _Points:
    """This process's rows as points to cluster, numbered over all processes."""

    def __init__(self, features: Tensor, metric: Metric, centre: Tensor | None = None) -> None:
        self.features = features
        self.metric: Metric = metric
        counts = gather(torch.tensor([len(features)], device=features.device))
        self.total, self.offset = int(counts.sum()), int(counts[: rank()].sum())
        if centre is None:
            if not self.total:
                raise ValueError("no rows to cluster")
            _require_finite(all_reduce_sum(_not_finite(features)))
            # Around the mean, squared lengths are as small as they get, and so are the errors of their differences.
            mean = self.sum(features) / self.total
            centre = _no_centre(features) if metric == "cosine" else mean.float()
        self.centre = centre
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    def chunks(self) -> Iterator[Tensor]:
        """This process's points, a chunk at a time."""
        for chunk in self.features.split(CHUNK):
            yield _prepared(chunk, self.metric, self.centre)

    def some(self, numbers: Tensor) -> _Points:
        """Those with the numbers given that this process holds, numbered anew."""
        here = numbers[(numbers >= self.offset) & (numbers < self.offset + len(self.features))]
        own = self.features[(here - self.offset).to(self.features.device)]
        return _Points(own, self.metric, self.centre)

    def at(self, numbers: Tensor) -> Tensor:
        """Points by number, `(len(numbers), dim)`, in every process."""
        numbers = numbers.to(self.features.device)
        here = (numbers >= self.offset) & (numbers < self.offset + len(self.features))
        points = torch.zeros(len(numbers), self.features.shape[1], device=self.features.device)
        points[here] = _prepared(self.features[numbers[here] - self.offset], self.metric, self.centre)
        return all_reduce_sum(points)

    def squared_distances(self, candidates: Tensor) -> Tensor:
        """Squared distance of this process's points to each candidate, float64 `(rows, candidates)`.

        By products, one for all candidates; in float64, in which the same point comes out as such, far below `SAME`.
        """
        wide = candidates.double()
        lengths = wide.square().sum(dim=1)
        chunks = [own[:, None] - 2 * (points @ wide.T) + lengths for points, own in self._wide()]
        return torch.cat(chunks).clamp_(min=0)

    def _wide(self) -> Iterable[tuple[Tensor, Tensor]]:
        """This process's points in float64, with their squared lengths; kept where they take little memory."""
        if self._kept is not None:
            return self._kept
        found = ((chunk, chunk.square().sum(dim=1)) for chunk in (part.double() for part in self.chunks()))
        if self.features.numel() * torch.float64.itemsize > KEPT:
            return found
        self._kept = list(found)
        return self._kept

    def sum(self, per_point: Tensor) -> Tensor:
        """Sum of a column of each process, or of each of several columns, over all processes, float64."""
        return all_reduce_sum(per_point.sum(dim=0, dtype=torch.float64))

    def draw(self, weights: Tensor, numbers: Tensor) -> Tensor:
        """Numbers of the points on which fractions of the total weight, float64 in [0, 1), fall."""
        reached = weights.double().cumsum(dim=0)
        own = reached[-1:] if len(reached) else reached.new_zeros(1)
        # The same borders in every process: no target is in two of them, or in none.
        borders = F.pad(gather(own), (1, 0)).cumsum(dim=0)
        before, target = borders[rank()], numbers.to(weights.device) * borders[-1]
        mine = (target >= before) & (target < borders[rank() + 1])
        found = torch.searchsorted(reached, target[mine] - before, right=True).clamp_(max=max(len(reached) - 1, 0))
        drawn = torch.zeros(len(target), dtype=torch.int64, device=weights.device)
        drawn[mine] = found + self.offset
        return all_reduce_sum(drawn)

    def furthest(self, distances: Tensor) -> Tensor:
        """Number of the point, of all processes', with the largest distance, int64 `(1,)`."""
        own = distances.new_full((1, 2), -1, dtype=torch.float64)
        if len(distances):
            distance, row = distances.max(dim=0)
            own = torch.stack([distance.double(), (row + self.offset).double()])[None]
        every = gather(own)
        return every[every[:, 0].argmax(), 1].long()[None]


def _seed(points: _Points, clusters: int, numbers: torch.Generator) -> Tensor:
    """Starting centroids by k-means++, from a sample where there are many points and it is varied enough."""
    size = max(SEEDED_FROM, 20 * clusters)
    if points.total > size:
        sample = points.some(torch.randint(points.total, (size,), generator=numbers))
        try:
            return _plus_plus(sample, clusters, numbers)
        except TooFewPointsError:
            pass  # Rare points may have been missed: look at all of them.
    return _plus_plus(points, clusters, numbers)


def _plus_plus(points: _Points, clusters: int, numbers: torch.Generator) -> Tensor:
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


def _lloyd(points: _Points, centroids: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, int, int]:
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


def _reseed(points: _Points, centroids: Tensor, moved: Tensor, empty: list[int]) -> int:
    """Move the centroids without rows, in `moved`, each to the point that is then furthest from all others."""
    nearest = [_distances(chunk, centroids, points.metric).amin(dim=1) for chunk in points.chunks()]
    distances = torch.cat(nearest)
    for cluster in empty:
        point = points.at(points.furthest(distances))
        moved[cluster] = point[0]
        to_it = [_distances(chunk, point, points.metric)[:, 0] for chunk in points.chunks()]
        distances = torch.minimum(distances, torch.cat(to_it))
    return len(empty)


def _minibatches(points: _Points, centroids: Tensor, numbers: torch.Generator, steps: int, batch_size: int) -> Tensor:
    """Centroids as the running means of the rows of random batches that came to them."""
    seen = torch.zeros(len(centroids), dtype=torch.float64, device=centroids.device)
    for _ in range(steps):
        batch = points.some(torch.randint(points.total, (batch_size,), generator=numbers))
        sums, counts, _ = _sums(batch, centroids)
        sums += centroids * seen[:, None]
        seen += counts
        centroids = _means(sums, seen, centroids, points.metric)
    return centroids


def _sums(points: _Points, centroids: Tensor) -> tuple[Tensor, Tensor, float]:
    """Sum `(clusters, dim)` and number `(clusters,)` of each centroid's points, float64, and the inertia."""
    clusters, dim = centroids.shape
    sums = torch.zeros(clusters, dim + 2, dtype=torch.float64, device=centroids.device)
    for chunk in points.chunks():
        distance, nearest = _distances(chunk, centroids, points.metric).min(dim=1)
        # A product with the table of memberships: adding by index would not be repeatable on a GPU.
        members = F.one_hot(nearest, clusters).T.to(chunk.dtype)
        sums += members @ torch.cat([chunk, torch.ones_like(distance)[:, None], distance[:, None]], dim=1)
    all_reduce_sum(sums)
    return sums[:, :dim], sums[:, dim], float(sums[:, dim + 1].sum())


def _means(sums: Tensor, counts: Tensor, centroids: Tensor, metric: Metric) -> Tensor:
    """Centroids from sums and numbers of points; those without points stay."""
    means = (sums / counts.clamp(min=1)[:, None]).float()
    if metric == "cosine":
        means = F.normalize(means, dim=1)
    return torch.where(counts[:, None] > 0, means, centroids)


def _prepared(features: Tensor, metric: Metric, centre: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=1) if metric == "cosine" else features.float() - centre


def _distances(points: Tensor, centroids: Tensor, metric: Metric) -> Tensor:
    """Squared distances, or 1 − cosine, `(points, centroids)`."""
    products = points @ centroids.T
    if metric == "cosine":
        return (1 - products).clamp_(min=0)
    return (points.square().sum(dim=1, keepdim=True) - 2 * products + centroids.square().sum(dim=1)).clamp_(min=0)


def _no_centre(like: Tensor) -> Tensor:
    return torch.zeros(like.shape[1], device=like.device)


def _not_finite(features: Tensor) -> Tensor:
    """Number of rows that hold something not finite, int64 scalar."""
    return torch.stack([(~chunk.isfinite().all(dim=1)).sum() for chunk in features.split(CHUNK)]).sum()


def _require_finite(wrong: Tensor) -> None:
    count = int(wrong)
    if count:
        raise ValueError(f"features that are not finite (NaN or infinite) in {count} rows: nothing to cluster by")
