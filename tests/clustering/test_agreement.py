"""Agreement of clusters and classes is what it is by hand."""

import numpy as np
import pytest

from sslflow.clustering.agreement import agreement


def test_agreement_by_hand():
    labels, clusters = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 5, 9, 9, 9, 9])
    found = agreement(labels, clusters)
    # Matching 5 to class 0 (2 rows) and 9 to class 1 (2 rows); class 2 stays without a cluster.
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["purity"] == pytest.approx(4 / 6)
    # Pairs together: in both 1 + 1 = 2, in classes 3 + 1 = 4, in clusters 1 + 6 = 7, of 15.
    assert found["ari"] == pytest.approx((2 - 4 * 7 / 15) / ((4 + 7) / 2 - 4 * 7 / 15))
    entropies = [-sum(p * np.log(p) for p in shares) for shares in ((1 / 2, 1 / 3, 1 / 6), (1 / 3, 2 / 3))]
    together = -sum(p * np.log(p) for p in (1 / 3, 1 / 6, 1 / 3, 1 / 6))
    assert found["nmi"] == pytest.approx((sum(entropies) - together) / np.mean(entropies))


def test_agreement_of_the_same_partition_and_of_none():
    labels = np.array([0, 0, 1, 1])
    assert agreement(labels, 1 - labels) == pytest.approx({"nmi": 1.0, "ari": 1.0, "accuracy": 1.0, "purity": 1.0})
    assert agreement(labels, np.zeros(4, dtype=int)) == pytest.approx(
        {"nmi": 0.0, "ari": 0.0, "accuracy": 0.5, "purity": 0.5}
    )
