"""Groups among images that were judged unknown: how many classes they may be of, and which image is of which.

K-means for each number of groups, and of these the number with the best mean silhouette (Rousseeuw 1987). Known images
stand beside them, grouped by class: they set how fine a class is, and a group that lies inside a known class, or two
groups that are one, cost. No label of an unknown image is looked at.

The number is a rough estimate. Of 2 to 8 real classes (digits, clothes by features of pretrained encoders) it was off
by 1.5 on average with known images and by 1.6 without, where to say 5 each time is off by 1.7. A single class was found
to be one six times of six with known images, never without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.clustering.kmeans import TooFewPointsError, assign, kmeans
from sslflow.runtime.rng import permutation
from sslflow.settings.params import Count

SAMPLE = 1500
"""Rows at most, of the unknown and of the known, by which the number of groups is chosen: each is compared with each
other one."""


@dataclass(frozen=True)
class Groups:
    """What `discover` found."""

    labels: Tensor
    """Group of each row, int64 `(m,)`, from 0, the largest group first."""
    count: int
    """Groups: 0 without rows."""
    score: dict[int, float]
    """Mean silhouette, in [−1, 1], by number of groups, for the numbers that were tried and that have one."""
    centroids: Tensor
    """float32 `(count, dim)`, of length 1."""


@torch.no_grad()
def discover(
    features: Tensor,
    seed: int,
    known: Tensor | None = None,
    known_labels: Tensor | None = None,
    *,
    most: Count = 30,
    restarts: Count = 2,
) -> Groups:
    """Group the rows of `features`, float `(m, dim)`, m ≥ 0, by direction, into at most `most` groups, in one process.

    `known`, float `(n, dim)`, are features of images judged known, from the same domain where there are enough, and
    `known_labels`, int64 `(n,)`, their classes, which may be predictions. Without them, a single group has no
    silhouette, and is found only where the rows are all alike or fewer than three: pass them where there are any.

    The number of groups is chosen on at most `SAMPLE` random rows of either, and all rows are then grouped, by k-means
    with so many `restarts`. Raises `ValueError` where a feature is not finite, and for shapes that don't match.
    """
    points = F.normalize(features.float(), dim=1)
    if known is None or known_labels is None:
        if known is not known_labels:
            raise ValueError("known and known_labels come together: found one of them; pass both, or neither")
        known, known_labels = points[:0], torch.empty(0, dtype=torch.int64)
    if known.shape != (len(known_labels), points.shape[1]):
        wanted = f"({len(known_labels)}, {points.shape[1]})"
        raise ValueError(f"known has shape {tuple(known.shape)}: expected {wanted}, a row for each of known_labels")
    if not len(points):
        return Groups(torch.empty(0, dtype=torch.int64, device=points.device), 0, {}, points)
    sample = _some(points, seed, "unknown")
    others = F.normalize(_some(known, seed, "known").float(), dim=1).to(points.device)
    classes = _some(known_labels, seed, "known").unique(return_inverse=True)[1].to(points.device)
    both = torch.cat([sample, others])
    if not both.isfinite().all():
        raise ValueError("features that are not finite (NaN or infinite): no groups to find by them")
    distances = (1 - both @ both.T).clamp_(min=0).fill_diagonal_(0)
    score: dict[int, float] = {}
    for count in range(1, max(min(most, len(sample) - 1), 1) + 1):
        try:
            labels, _ = _grouped(sample, count, seed, restarts)
        except TooFewPointsError:
            break
        if count > 1 or len(classes):
            score[count] = silhouette(distances, torch.cat([labels, count + classes]))
    labels, centroids = _grouped(points, max(score, key=score.__getitem__, default=1), seed, restarts)
    order = labels.bincount(minlength=len(centroids)).argsort(descending=True, stable=True)
    return Groups(order.argsort()[labels], len(centroids), score, centroids[order])


def silhouette(distances: Tensor, labels: Tensor) -> float:
    """Mean silhouette of groups `labels`, int64 `(n,)`, two or more, by the table of distances `(n, n)`."""
    return float(silhouettes(distances, labels).mean())


def silhouettes(distances: Tensor, labels: Tensor) -> Tensor:
    """Silhouette of each row, float64 `(n,)`, in [−1, 1]: how much nearer, on average, the rows of its own group are
    than those of the nearest other one, as a share of the larger; 0 for a row that is alone in its group."""
    members = F.one_hot(labels).to(distances.dtype)
    sizes = members.sum(dim=0)
    sums = distances @ members
    own = sums.gather(1, labels[:, None])[:, 0] / (sizes[labels] - 1).clamp(min=1)
    # A number without rows is no group, and a row's own group is no other one.
    others = (sums / sizes.clamp(min=1)).masked_fill((members > 0) | (sizes == 0), torch.inf).amin(dim=1)
    larger = torch.maximum(own, others)
    return torch.where((sizes[labels] > 1) & (larger > 0), (others - own) / larger, 0.0).double()


def _some(rows: Tensor, seed: int, name: str) -> Tensor:
    return rows[permutation(len(rows), seed, "discover", name)[:SAMPLE].to(rows.device)]


def _grouped(points: Tensor, count: int, seed: int, restarts: int) -> tuple[Tensor, Tensor]:
    """Group of each point and the centroids."""
    centroids = kmeans(points, seed, clusters=count, restarts=restarts).centroids
    return assign(points, centroids)[0], centroids
