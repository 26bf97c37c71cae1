"""Which images to label next, by their features alone: typical ones of every group, or ones that cover all.

`typical` is TypiClust (arXiv:2202.02794): as many clusters as labels there will be, of each the image in the densest
place. `covering` is the greedy k-centre rule (core-set, arXiv:1708.00489): each next image is the one furthest from all
that are chosen or labelled. With few labels the first is better, since what is furthest from everything is often odd;
with many the second.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.clustering.kmeans import TooFewPointsError, assign, kmeans

MOST_CLUSTERS = 500
"""With more, clusters get so small that their densest place says little; then several are chosen of each."""
NEIGHBOURS = 20
"""By the mean distance to so many of its cluster an image is typical."""
CHUNK = 4096


@torch.no_grad()
def typical(features: Tensor, budget: int, seed: int, known: Tensor | None = None) -> Tensor:
    """Rows of `features` `(n, dim)`, int64 `(budget,)`, in the order in which to label them; `known`, int64 `(m,)`, are
    those that have labels already, and are not chosen. From the largest cluster without a label or a chosen image to
    the smallest, then again. Raises `ValueError` where fewer than `budget` rows have none."""
    known = _known(features, budget, known)
    points = F.normalize(features.float(), dim=1)
    cluster = _clusters(points, min(len(known) + budget, MOST_CLUSTERS), seed)
    taken = torch.bincount(cluster[known], minlength=int(cluster.max()) + 1)
    free = torch.ones(len(points), dtype=torch.bool, device=points.device)
    free[known] = False
    sizes = torch.bincount(cluster, minlength=len(taken))
    density = _density(points, cluster)
    density[~free] = -torch.inf
    left = torch.bincount(cluster[free], minlength=len(taken))
    chosen: list[int] = []
    while len(chosen) < budget:
        # Fewest labels first, of these the largest cluster.
        rank = torch.where(left > 0, -taken.double() * (len(points) + 1) + sizes, -torch.inf)
        here = int(rank.argmax())
        row = int(torch.where(cluster == here, density, -torch.inf).argmax())
        chosen.append(row)
        density[row] = -torch.inf
        taken[here] += 1
        left[here] -= 1
    return torch.tensor(chosen)


@torch.no_grad()
def covering(features: Tensor, budget: int, known: Tensor | None = None) -> Tensor:
    """As `typical`, by coverage: without `known` rows the first is the one nearest to the mean."""
    known = _known(features, budget, known)
    points = F.normalize(features.float(), dim=1)
    free = torch.ones(len(points), dtype=torch.bool, device=points.device)
    if len(known):
        distance = torch.cat([1 - (chunk @ points[known].T).amax(dim=1) for chunk in points.split(CHUNK)])
        free[known] = False
        chosen = []
    else:
        first = int((points @ F.normalize(points.mean(dim=0), dim=0)).argmax())
        distance, chosen = 1 - points @ points[first], [first]
        free[first] = False
    while len(chosen) < budget:
        row = int(torch.where(free, distance, -torch.inf).argmax())
        chosen.append(row)
        free[row] = False
        distance = torch.minimum(distance, 1 - points @ points[row])
    return torch.tensor(chosen[:budget])


def _known(features: Tensor, budget: int, known: Tensor | None) -> Tensor:
    known = torch.zeros(0, dtype=torch.int64) if known is None else known.unique()
    if budget < 1 or len(features) - len(known) < budget:
        raise ValueError(
            f"{len(features) - len(known):,} images have no label: {budget:,} of them can't be chosen; ask for fewer"
        )
    return known.to(features.device)


def _clusters(points: Tensor, count: int, seed: int) -> Tensor:
    """The cluster of each row, of as many as there are distinct rows at the most."""
    try:
        found = kmeans(points, seed, clusters=count, restarts=1)
    except TooFewPointsError as error:
        found = kmeans(points, seed, clusters=error.distinct, restarts=1)
    return assign(points, found.centroids)[0]


def _density(points: Tensor, cluster: Tensor) -> Tensor:
    """How near the nearest rows of the same cluster are: their mean cosine, `(n,)`; of a row that is alone, -1."""
    density = torch.full((len(points),), -1.0, device=points.device)
    for number in cluster.unique().tolist():
        rows = (cluster == number).nonzero()[:, 0]
        if len(rows) < 2:
            continue
        for part in rows.split(CHUNK):
            nearest = (points[part] @ points[rows].T).topk(min(NEIGHBOURS + 1, len(rows)), dim=1).values
            density[part] = (nearest.sum(dim=1) - 1) / (nearest.shape[1] - 1)  # but for itself
    return density
