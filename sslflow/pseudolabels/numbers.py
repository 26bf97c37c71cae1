"""How many clusters there should be: several criteria over a grid of numbers, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslflow.clustering.groups import silhouettes
from sslflow.clustering.kmeans import Metric, TooFewPointsError, assign, kmeans
from sslflow.clustering.points import no_centre, prepared
from sslflow.pseudolabels.criteria import CRITERIA
from sslflow.runtime.rng import permutation

STABLE = 0.6
"""Adjusted Rand index of two halves' clusterings from which on a number of clusters is a property of the images."""
WELL_APART = 0.5
"""Silhouette from which on clusters are taken for real ones (Kaufman and Rousseeuw 1990)."""
EACH = 20
"""Images for each cluster, at least, or a number isn't tried."""
SPLITS = 2
"""Divisions of the images into halves that are clustered apart."""


@dataclass(frozen=True)
class Tried:
    """What the criteria say of a number of clusters; of each, more is better."""

    clusters: int
    silhouette: float
    """Mean, in [−1, 1]."""
    calinski_harabasz: float
    """Variance between clusters by that within them, each by its degrees of freedom."""
    stability: float
    """Adjusted Rand index between clusterings of two halves of the images, extended to all; 0 is chance."""


def grid(images: int, present: int) -> list[int]:
    """Numbers to try, by steps of about √2 up to three times the `present` one, and this one itself, as far as there
    are `EACH` images for each cluster."""
    found, number = {present}, 2.0
    while number <= 3 * present:
        found.add(round(number))
        number *= 2**0.5
    return [one for one in sorted(found) if 2 <= one <= images // EACH]


def beyond(present: int, compared: int, count: int, unit: str) -> str:
    """A sentence where the `present` number of clusters is too large to try on so many `compared` ones of the `count`
    examples, called `unit`, that clusters are made of; else nothing."""
    if present <= compared // EACH:
        return ""
    needed = EACH * present
    mend = (
        f"audit_clusters.sample: {needed} tries it"
        if needed <= count
        else f"trying it takes {needed:,} {unit}, and, whatever audit_clusters.sample is, there are {count:,}"
    )
    return (
        f"The number there is now, {present}, lies beyond what was tried: {compared:,} {unit} were compared, and each "
        f"cluster takes {EACH}; {mend}."
    )


@torch.no_grad()
def tried(sample: Tensor, numbers: list[int], seed: int, metric: Metric) -> list[Tried]:
    """Cluster a `sample` of features, `(m, dim)`, by each of the `numbers`; as many as it has distinct rows at most."""
    from sklearn.metrics import adjusted_rand_score  # a second to load, which no check of settings needs

    centre = no_centre(sample) if metric == "cosine" else sample.float().mean(dim=0)
    points = prepared(sample, metric, centre)
    distances = (1 - points @ points.T).clamp_(min=0) if metric == "cosine" else torch.cdist(points, points)
    distances.fill_diagonal_(0)
    halves = [permutation(len(points), seed, "halves", split).to(points.device) for split in range(SPLITS)]
    found = []
    for number in numbers:
        try:
            whole = _clustered(points, points, number, seed, metric)
            both = [
                [_clustered(part, points, number, seed, metric) for part in points[order].tensor_split(2)]
                for order in halves
            ]
        except TooFewPointsError:
            break
        index = sum(adjusted_rand_score(a.cpu(), b.cpu()) for a, b in both) / SPLITS
        found.append(
            Tried(number, float(silhouettes(distances, whole).mean()), _calinski_harabasz(points, whole), float(index))
        )
    return found


def _clustered(part: Tensor, points: Tensor, number: int, seed: int, metric: Metric) -> Tensor:
    """Cluster of all points by K-means on a part of them."""
    return assign(points, kmeans(part, seed, clusters=number, metric=metric, restarts=1).centroids, metric)[0]


def _calinski_harabasz(points: Tensor, cluster: Tensor) -> float:
    members = torch.nn.functional.one_hot(cluster).to(points.dtype)
    members = members[:, members.any(dim=0)]
    sizes = members.sum(dim=0)
    means = (members.T @ points) / sizes[:, None]
    between = float((sizes[:, None] * (means - points.mean(dim=0)).square()).sum())
    within = float((points - members @ means).square().sum())
    clusters = members.shape[1]
    return between / max(clusters - 1, 1) * (len(points) - clusters) / max(within, 1e-12)


def suggested(found: list[Tried], unit: str) -> tuple[int, str]:
    """A number of clusters of what is called `unit`, and the reason in a sentence; 0 where none stands out.

    Two criteria at least must be best at it or at its neighbour on the grid, and it must be stable. What is best at the
    first or the last number that was tried has no peak, and counts only at two clusters that lie well apart.
    """
    if len(found) < 2:
        return 0, f"There are too few {unit}, or too few that differ, to compare numbers of clusters."
    best = {name: max(range(len(found)), key=lambda place: getattr(found[place], name)) for name in CRITERIA}
    said = ", ".join(f"{CRITERIA[name][0]} is best at {found[place].clusters}" for name, place in best.items())
    peaks = {name: place for name, place in best.items() if _is_peak(found, place)}
    votes = {place: [name for name, own in peaks.items() if abs(own - place) <= 1] for place in peaks.values()}
    if len(peaks) < 2:
        return 0, (
            f"No clear number of clusters: {said}. Most of these are at the end of what was tried: to these criteria "
            f"the {unit} lie in no groups, but change by degrees."
        )
    place = max(votes, key=lambda one: (len(votes[one]), found[one].stability))
    if len(votes[place]) < 2:
        return 0, f"No clear number of clusters: the criteria disagree; {said}."
    if found[place].stability < STABLE:
        return 0, (
            f"No clear number of clusters: {said}, but two halves of the {unit} are clustered differently at "
            f"{found[place].clusters} (adjusted Rand index {found[place].stability:.2f}, 1 is the same)."
        )
    *most, last = (CRITERIA[name][0] for name in votes[place])
    return found[place].clusters, (
        f"{found[place].clusters} clusters: {', '.join(most)} and {last} agree, to a step of what was tried, and two "
        f"halves of the {unit} come to such clusters (adjusted Rand index {found[place].stability:.2f}); {said}."
    )


def _is_peak(found: list[Tried], place: int) -> bool:
    """Whether there is less on both sides, or two clusters that lie well apart."""
    apart = found[place].clusters == 2 and found[place].silhouette >= WELL_APART
    return apart or 0 < place < len(found) - 1
