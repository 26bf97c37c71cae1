"""The parts of the audit of pseudo-labels, on points whose clusters are known."""

from __future__ import annotations

import fakerun
import numpy as np
import pytest
import torch

from sslflow.clustering.confidence import confidence
from sslflow.clustering.groups import silhouette, silhouettes
from sslflow.data.dataset import Dataset
from sslflow.pseudolabels import findings
from sslflow.pseudolabels.divisions import divisions
from sslflow.pseudolabels.findings import Known
from sslflow.pseudolabels.numbers import Tried, beyond, grid, suggested, tried
from sslflow.pseudolabels.stability import alike
from sslflow.pseudolabels.trust import calibration_error, reliability, right_by_others, told_apart


def blobs(count: int, each: int = 60, dim: int = 8, spread: float = 0.15) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around so many far corners, and whose each is."""
    draw = torch.Generator().manual_seed(0)
    corners = 2 * torch.randn(count, dim, generator=draw)
    cluster = torch.arange(count).repeat_interleave(each)
    return corners[cluster] + spread * torch.randn(len(cluster), dim, generator=draw), cluster


def test_confidence_is_none_between_two_clusters_and_full_on_a_centroid():
    found = confidence(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 2.0, 1.0, 0.0]))
    assert found.tolist() == [0.0, 1.0, 0.5, 0.0]


def test_numbers_of_clusters_mean_nothing():
    first = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    same = alike(first, np.array([4, 4, 4, 0, 0, 0, 1, 1]), 3)
    assert same.agreed.all()
    assert (same.overlap.tolist(), same.nmi) == ([1, 1, 1], pytest.approx(1))
    other = alike(first, np.array([4, 4, 0, 0, 0, 0, 1, 1]), 4)
    assert other.agreed.tolist() == [True, True, False, *[True] * 5]
    assert other.overlap[:3].tolist() == [pytest.approx(2 / 3), pytest.approx(3 / 4), 1]
    assert np.isnan(other.overlap[3])
    assert alike(first, np.zeros(8, np.int64), 3).agreed.sum() == 3, "one stands for one at most"


def test_silhouettes_are_those_of_scikit_learn():
    from sklearn.metrics import silhouette_samples

    points, cluster = blobs(3, each=12, spread=1.5)
    distances = torch.cdist(points, points).fill_diagonal_(0)
    expected = np.asarray(silhouette_samples(distances.numpy(), cluster.numpy(), metric="precomputed"))
    np.testing.assert_allclose(silhouettes(distances, cluster).numpy(), expected, atol=1e-5)
    assert silhouette(distances, cluster) == pytest.approx(expected.mean(), abs=1e-5)


def test_a_merged_and_a_split_cluster_stand_out():
    points, cluster = blobs(8)
    assert (divisions(points, cluster, 8, 0).two, divisions(points, cluster, 8, 0).one) == ([], [])
    merged = torch.where(cluster == 5, 2, cluster)
    assert divisions(points, merged, 8, 0).two == [2]
    split = torch.where((cluster == 3) & (torch.arange(len(cluster)) % 2 == 0), 8, cluster)
    assert divisions(points, split, 9, 0).one == [(3, 8)]
    few = divisions(points[:120], cluster[:120], 2, 0)
    assert (few.two, few.one) == ([], []), "what is usual takes more clusters"


@pytest.mark.parametrize("count", [2, 5, 9])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_clear_number_is_found(count: int, metric):
    points, _ = blobs(count, each=600 // count)
    number, reason = suggested(tried(points, grid(len(points), max(count, 4)), 0, metric), "images")
    assert number == count
    assert reason.startswith(f"{count} clusters: ")


def test_where_there_are_no_clusters_none_are_suggested():
    points = torch.randn(600, 8, generator=torch.Generator().manual_seed(1))
    number, reason = suggested(tried(points, grid(600, 10), 0, "cosine"), "images")
    assert number == 0
    assert reason.startswith("No clear number of clusters")


def test_criteria_that_disagree_suggest_nothing():
    lines = [
        Tried(number, float(number == 4), float(number == 11), float(number == 23)) for number in (2, 4, 8, 11, 16, 23)
    ]
    assert suggested([*lines, Tried(32, 0, 0, 0)], "images")[0] == 0
    assert "disagree" in suggested([*lines, Tried(32, 0, 0, 0)], "images")[1]
    agreeing = [Tried(number, float(number == 4), float(number == 6), 0.1) for number in (2, 4, 6, 8, 11)]
    assert "clustered differently" in suggested(agreeing, "images")[1]


def test_the_grid_holds_the_number_there_is_and_stays_below_what_images_allow():
    assert grid(2000, 10) == [2, 3, 4, 6, 8, 10, 11, 16, 23]
    assert grid(100, 10) == [2, 3, 4]
    assert grid(30, 10) == []


def test_a_number_that_is_too_large_to_be_tried_is_said_to_be():
    assert beyond(100, 2000, 5000, "images") == ""
    assert 101 not in grid(2000, 101)
    assert "now, 101, lies beyond" in beyond(101, 2000, 5000, "images")
    assert beyond(101, 2000, 5000, "images").endswith("audit_clusters.sample: 2020 tries it.")
    assert "takes 2,020 images, and, whatever audit_clusters.sample is, there are 2,010" in beyond(
        101, 2000, 2010, "images"
    )
    assert "audit_clusters.sample" in beyond(101, 2000, 2010, "images")


def test_the_mean_of_features_is_taken_once_in_parts_and_of_fitted_rows_alone(tmp_path, monkeypatch):
    labels = fakerun.dataset(tmp_path / "data", {"train": 40}, ("a", "b"))
    features = 1000 + torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    features[5] = torch.nan
    good, fitted = np.arange(len(labels)) != 5, np.delete(np.arange(len(labels)), 5)
    monkeypatch.setattr(findings, "CHUNK", 7)
    known = Known(Dataset(tmp_path / "data"), features, good, fitted, np.zeros(len(labels), np.int64), 1, "euclidean")
    torch.testing.assert_close(known.centre, features[fitted].double().mean(dim=0).float(), rtol=0, atol=0)
    assert known.centre is known.centre


def test_calinski_harabasz_is_that_of_scikit_learn():
    from sklearn.cluster import KMeans
    from sklearn.metrics import calinski_harabasz_score

    points, _ = blobs(4)
    (found,) = tried(points, [4], 0, "euclidean")
    known = KMeans(4, random_state=0).fit_predict(points.numpy())
    assert found.calinski_harabasz == pytest.approx(calinski_harabasz_score(points.numpy(), known), rel=1e-3)


def test_a_calibrated_confidence_has_no_error_and_a_boastful_one_has():
    draw = np.random.default_rng(0)
    sure = draw.random(4000)
    right = draw.random(4000) < sure
    bins = reliability(sure, right, np.arange(4000))
    assert len(bins) == 10
    assert calibration_error(bins) < 0.03
    assert all(one.low <= one.right <= one.high for one in bins)
    assert calibration_error(reliability(np.ones(4000), right, np.arange(4000))) == pytest.approx(0.5, abs=0.03)
    assert told_apart(sure, right) == pytest.approx(5 / 6, abs=0.02)
    assert told_apart(sure, np.ones(4000, bool)) == 0.5
    assert len(reliability(sure[:5], right[:5], np.arange(5))) == 1


def test_a_small_sample_tells_the_accuracy_within_its_interval():
    """Of 200 samples of 60 labels, about 95 % must hold what all labels say."""
    from sslflow.evaluation.intervals import interval

    draw = np.random.default_rng(0)
    cluster = draw.integers(0, 5, 5000)
    labels = np.where(draw.random(5000) < 0.7, cluster, draw.integers(0, 5, 5000))
    truth, held = float((labels == cluster).mean()), 0
    for _ in range(200):
        rows = draw.permutation(5000)[:60]
        low, high = interval(right_by_others(cluster[rows], labels[rows], rows, 5, 5), rows)
        held += low <= truth <= high
    assert 0.88 <= held / 200 <= 1
    alone = right_by_others(np.array([0, 1]), np.array([0, 1]), np.arange(2), 2, 2)
    assert not alone.any(), "nobody else names the cluster"
