"""Clusters that are called by the class of their labelled images, so that they label the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslflow.data.splits import NO_LABEL


@dataclass(frozen=True)
class PseudoLabels:
    """Of all images, in manifest order."""

    cluster: np.ndarray
    """Cluster of each, int `(n,)`."""
    confidence: np.ndarray
    """In [0, 1], `(n,)`."""


def votes(cluster: np.ndarray, labels: np.ndarray, clusters: int, classes: int) -> np.ndarray:
    """How many rows of each class each cluster has, int64 `(clusters, classes)`, of rows with `cluster` and `labels`,
    int `(m,)`."""
    table = np.zeros((clusters, classes), dtype=np.int64)
    np.add.at(table, (cluster, labels), 1)
    return table


def names_of(table: np.ndarray) -> np.ndarray:
    """The commonest class of each cluster, int64 `(clusters,)`, the first of equals; −1 for one without labelled
    rows."""
    return np.where(table.any(axis=1), table.argmax(axis=1), NO_LABEL)


def labelled_by(
    pseudo: PseudoLabels, rows: np.ndarray, labelled: np.ndarray, labels: np.ndarray, classes: int, above: float
) -> tuple[np.ndarray, np.ndarray]:
    """Those of `rows` that clusters label, and the classes, int64: clusters are named by the rows `labelled` with their
    `labels`; `rows` among these, in clusters without a name and with a confidence of `above` at most are left out."""
    table = votes(pseudo.cluster[labelled], labels, int(pseudo.cluster.max()) + 1, classes)
    given = names_of(table)[pseudo.cluster[rows]]
    used = (given != NO_LABEL) & (pseudo.confidence[rows] > above) & ~np.isin(rows, labelled)
    return rows[used], given[used]
