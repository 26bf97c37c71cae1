"""Whether two clusterings of the same images are the same, whatever numbers their clusters have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alike:
    """How another clustering agrees with the first."""

    agreed: np.ndarray
    """Whether each image is in the cluster that stands for its own, bool `(n,)`."""
    overlap: np.ndarray
    """Of each cluster, images that it shares with the one that stands for it, as a share of both together (Jaccard);
    NaN for an empty one, `(clusters,)`."""
    nmi: float
    """Normalised mutual information, in [0, 1]."""


def alike(first: np.ndarray, other: np.ndarray, clusters: int) -> Alike:
    """Compare cluster numbers, int `(n,)` each; those of the first are below `clusters`. One of the other's stands for
    each of the first, at most, so that as many images as can be are in both (Hungarian method)."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import normalized_mutual_info_score  # a second to load, which no check of settings needs

    table = np.zeros((clusters, int(other.max()) + 1), dtype=np.int64)
    np.add.at(table, (first, other), 1)
    own, its = linear_sum_assignment(table, maximize=True)
    stands = np.full(clusters, -1)
    stands[own] = its
    both = np.zeros(clusters)
    both[own] = table[own, its]
    sizes, others = table.sum(axis=1), np.append(table.sum(axis=0), 0)[stands]
    overlap = np.where(sizes > 0, both / np.maximum(sizes + others - both, 1), np.nan)
    return Alike(stands[first] == other, overlap, float(normalized_mutual_info_score(first, other)))
