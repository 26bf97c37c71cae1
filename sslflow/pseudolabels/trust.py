"""How far confidence can be trusted: pseudo-labels that are named by training labels, beside the labels of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslflow.evaluation.intervals import interval
from sslflow.evaluation.named import names_of, votes

BINS, IN_EACH = 10, 20
"""Bins of equally many images at most, and images in each at least."""


@dataclass(frozen=True)
class Bin:
    """Images of about the same confidence."""

    confidence: float
    """Mean."""
    right: float
    """Share whose pseudo-label is right."""
    low: float
    """The ends of its 95 % interval."""
    high: float
    images: int


def reliability(confidence: np.ndarray, right: np.ndarray, groups: np.ndarray) -> list[Bin]:
    """Bins by rising `confidence`, `(n,)`, of what is `right`, bool `(n,)`; images of one of the `groups`, int `(n,)`,
    depend on one another."""
    count = max(1, min(BINS, len(right) // IN_EACH))
    found = []
    for places in np.array_split(np.argsort(confidence, kind="stable"), count):
        if len(places):
            low, high = interval(right[places], groups[places])
            mean, share = float(confidence[places].mean()), float(right[places].mean())
            found.append(Bin(mean, share, low, high, len(places)))
    return found


def calibration_error(bins: list[Bin]) -> float:
    """Mean distance of confidence from the share that is right, weighted by images."""
    total = sum(one.images for one in bins)
    return sum(one.images * abs(one.confidence - one.right) for one in bins) / max(1, total)


def told_apart(confidence: np.ndarray, right: np.ndarray) -> float:
    """How often a right pseudo-label is surer than a wrong one (area under the ROC curve); 0.5 where there is only one
    kind."""
    from scipy.stats import rankdata  # half a second to load, which no check of settings needs

    ranks, count = rankdata(confidence), int(right.sum())
    if count in (0, len(right)):
        return 0.5
    return float((ranks[right].sum() - count * (count + 1) / 2) / (count * (len(right) - count)))


def right_by_others(
    cluster: np.ndarray, labels: np.ndarray, groups: np.ndarray, clusters: int, classes: int
) -> np.ndarray:
    """Whether each row of a small labelled sample is in a cluster that the sample's rows of other groups name rightly,
    bool `(m,)`; one without any is not."""
    table = votes(cluster, labels, clusters, classes)
    right = np.zeros(len(cluster), dtype=bool)
    for group in np.unique(groups):
        own = groups == group
        left = table - votes(cluster[own], labels[own], clusters, classes)
        right[own] = names_of(left)[cluster[own]] == labels[own]
    return right
