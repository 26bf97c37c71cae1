"""How well clusters agree with classes that they were made without."""

from __future__ import annotations

import numpy as np


def agreement(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Agreement of class and cluster numbers, both int `(n,)`, n ≥ 1.

    - `nmi`: normalised mutual information (arithmetic mean), in [0, 1];
    - `ari`: adjusted Rand index, 0 on average for chance, 1 for the same partition;
    - `accuracy`: share of rows whose cluster stands for their class, each cluster matched to at most one class so that
      this is largest (Hungarian method);
    - `purity`: share of rows of their cluster's commonest class; it grows with the number of clusters.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import (
        adjusted_rand_score,
        normalized_mutual_info_score,
    )  # a second to load, which no check of settings needs
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(labels, clusters)
    matched = table[linear_sum_assignment(table, maximize=True)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
        "accuracy": float(matched / len(labels)),
        "purity": float(table.max(axis=0).sum() / len(labels)),
    }
