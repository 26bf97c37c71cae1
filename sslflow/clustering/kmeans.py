"""K-means on features, on any device and over several processes that hold a part of the rows each.

k-means++ seeding with several candidates a draw (Arthur & Vassilvitskii 2007), then Lloyd's iterations, or, above a
size, mini-batches (Sculley 2010). Randomness is drawn by row number, counted over all processes in rank order, so
the result does not depend on how the rows are divided, but for the last bits of sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.clustering.points import CHUNK, Metric, Points, no_centre, not_finite, prepared, require_finite
from sslflow.runtime.distributed import all_reduce_sum
from sslflow.runtime.parts import parts
from sslflow.runtime.rng import generator
from sslflow.settings.params import Count, NonNegative

SEEDED_FROM = 10_000
"""Seeding looks at so many random rows, or at 20 for each cluster where that is more."""
SAME = 1e-6
"""Points that are closer than this share of their usual length count as one: it is what float32 can tell apart."""
CELLS, SMALLEST = {"cpu": 2**19, "cuda": 2**25}, 256
"""Numbers at a time, of points and their distances, but at least so many rows: few enough for a CPU's cache, enough to
keep a GPU busy."""
ADDED = 2**21
"""Numbers of points that are added up in float32."""
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
    device: torch.device | None = None,
    *,
    clusters: Count,
    metric: Metric = "cosine",
    restarts: Count = 4,
    iterations: Count = 100,
    tolerance: NonNegative = 1e-6,
    minibatch_above: Count = 200_000,
    batch_size: Count = 8192,
) -> Clustering:
    """Cluster the rows of `features`, float `(n, dim)`, on the CPU or on the `device` that computes, theirs unless
    given; with several processes each passes its part of the rows.

    The best of `restarts` by inertia. Each takes at most `iterations` steps and ends earlier when the centroids'
    squared movement, summed, is at most `tolerance` times the mean squared distance to them. Above `minibatch_above`
    rows, each step but the last ones sees `batch_size` random rows. Raises `ValueError` where a feature is not finite
    and `TooFewPointsError` where distinct points are fewer than clusters.
    """
    points = Points(features, metric, device=device)
    if points.total <= minibatch_above:
        points.hold()
    best = None
    for restart in range(restarts):
        numbers = generator(seed, "kmeans", restart)
        centroids = _seed(points, clusters, numbers)
        steps, most = 0, iterations
        if points.total > minibatch_above:
            centroids = _minibatches(points, centroids, numbers, iterations, batch_size)
            steps, most = iterations, POLISH
        centroids, inertia, own_steps, reseeded = _lloyd(points, centroids, most, tolerance)
        if best is None or inertia < best.inertia:
            best = Clustering(centroids + points.centre, inertia, steps + own_steps, reseeded)
    assert best is not None
    return best


@torch.no_grad()
def assign(features: Tensor, centroids: Tensor, metric: Metric = "cosine") -> tuple[Tensor, Tensor, Tensor]:
    """Nearest centroid of each row, int64 `(n,)`, the distance to it (Euclidean, or 1 − cosine) and the margin, float32
    `(n,)`: how much further the second nearest is, 0 for a single centroid; on the centroids' device. Features may lie
    on the CPU. Raises `ValueError` where one is not finite."""
    require_finite(not_finite(features))
    centre = no_centre(centroids) if metric == "cosine" else centroids.mean(dim=0)
    found = []
    for chunk in parts(features, centroids.device, CHUNK):
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


def _lloyd(points: Points, centroids: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, float, int, int]:
    """Centroids after Lloyd's iterations, their inertia, how many iterations there were, and how many centroids were
    seeded anew."""
    members = _Members(points, len(centroids))
    step = reseeded = 0
    while step < iterations:
        step += 1
        sums, counts = members.sums(centroids)
        moved = _means(sums, counts, centroids, points.metric)
        shift, inertia = (moved - centroids).square().sum(), _about(points, centroids, sums, counts)
        # Read at once: a GPU is waited for once an iteration.
        shift, inertia, lost = torch.stack([shift.double(), inertia, (counts == 0).sum().double()]).tolist()
        if lost:
            reseeded += _reseed(points, centroids, moved, (counts == 0).nonzero()[:, 0].tolist())
        centroids = moved
        if not lost and shift <= tolerance * inertia / points.total:
            break
    return centroids, members.inertia(centroids), step, reseeded


def _about(points: Points, centroids: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
    """The inertia, float64, from the sums of each centroid's points, which costs nothing; rounded as squared lengths
    are."""
    wide = centroids.double()
    products = (sums * wide).sum()
    if points.metric == "cosine":
        return points.total - products
    return points.squared_length - 2 * products + (counts * wide.square().sum(dim=1)).sum()


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
        sums, counts = _Members(batch, len(centroids)).sums(centroids)
        sums += centroids * seen[:, None]
        seen += counts
        centroids = _means(sums, seen, centroids, points.metric)
    return centroids


class _Members:
    """Which points are each centroid's, over all processes."""

    def __init__(self, points: Points, clusters: int) -> None:
        dim, device = points.features.shape[1], points.device
        self._points, self._clusters = points, clusters
        self._rows = max(SMALLEST, CELLS[device.type] // (clusters + dim))
        self._chunk = max(self._rows, ADDED // dim)
        # Made once: to ask for its memory each time takes a fifth of the whole.
        self._table = torch.empty(self._rows, clusters, device=device)
        self._sums = torch.zeros(clusters, dim, dtype=torch.float64, device=device)
        self._nearest: list[Tensor] = []

    def sums(self, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """Sum `(clusters, dim)` and number `(clusters,)` of each centroid's points, float64. Of points that are held on
        a CPU, those alone that changed their centroid since the last call move from sum to sum."""
        before, self._nearest = self._nearest, []
        if not before:
            self._sums.zero_()
        counts = torch.zeros_like(self._sums[:, 0])
        for number, (chunk, nearest) in enumerate(self._assigned(centroids)):
            self._sums += self._change(chunk, nearest, before[number] if before else None)
            # Not `bincount`, for which a GPU is waited for; whole numbers add up alike in any order.
            counts.index_add_(0, nearest, counts.new_ones(len(nearest)))
            if self._points.held is not None and not nearest.is_cuda:
                self._nearest.append(nearest)
        both = all_reduce_sum(torch.cat([self._sums, counts[:, None]], dim=1))
        return both[:, :-1], both[:, -1]

    def inertia(self, centroids: Tensor) -> float:
        """Sum over all points of the squared distance to the nearest centroid, or of 1 − cosine."""
        total = torch.zeros((), dtype=torch.float64, device=centroids.device)
        for chunk, nearest in self._assigned(centroids):
            for some, own in zip(chunk.split(self._rows), nearest.split(self._rows), strict=True):
                if self._points.metric == "cosine":
                    distances = (1 - (some * centroids[own]).sum(dim=1)).clamp_(min=0)
                else:
                    distances = (some - centroids[own]).square_().sum(dim=1)
                total += distances.sum(dtype=torch.float64)
        return float(all_reduce_sum(total))

    def _assigned(self, centroids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's points, a chunk at a time, and the number of the nearest centroid of each, int64."""
        # A point's own length doesn't change which centroid is nearest.
        cosine = self._points.metric == "cosine"
        offsets = torch.zeros_like(centroids[:, 0]) if cosine else 0.5 * centroids.square().sum(dim=1)
        for chunk in self._points.chunks(self._chunk):
            nearest = torch.empty(len(chunk), dtype=torch.int64, device=chunk.device)
            for some, own in zip(chunk.split(self._rows), nearest.split(self._rows), strict=True):
                table = torch.addmm(offsets, some, centroids.T, alpha=-1, out=self._table[: len(some)])
                if table.is_cuda:
                    torch.argmin(table, dim=1, out=own)
                else:
                    table.numpy().argmin(axis=1, out=own.numpy())  # several times as fast as torch's
            yield chunk, nearest

    def _change(self, points: Tensor, nearest: Tensor, before: Tensor | None) -> Tensor:
        """What the points bring to the sums, beside what they brought `before`."""
        own = torch.zeros(self._clusters, points.shape[1], device=points.device)
        if points.is_cuda:
            # Products with the table of memberships: adding by index would not be repeatable on a GPU.
            numbers = torch.arange(self._clusters, device=points.device)[:, None]
            for some, members in zip(points.split(self._rows), nearest.split(self._rows), strict=True):
                own.addmm_((members == numbers).to(some.dtype), some)
            return own
        if before is None:
            return own.index_add_(0, nearest, points)
        moved = (nearest != before).nonzero()[:, 0]
        points = points[moved]
        return own.index_add_(0, nearest[moved], points).index_add_(0, before[moved], points, alpha=-1)


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
