"""The pseudolabel stage, from features on the disk to labels, sizes, the sheet and metrics."""

from __future__ import annotations

import csv

import fakerun
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sslflow import paths
from sslflow.clustering.kmeans import assign
from sslflow.runtime.files import read_json, write_json
from sslflow.settings.params import ParamsError
from sslflow.stages import pseudolabel

PARAMS = "compute: {device: cpu, threads: 1}\npseudolabel: {restarts: 2}\n"
CLASSES = ("bag", "boot", "coat", "dress")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    yield
    torch.use_deterministic_algorithms(False)


def run() -> tuple[dict[str, float], list[list[str]], dict[str, np.ndarray]]:
    """The stage's metrics, the lines of its table of sizes, and the columns of its labels."""
    pseudolabel.main("simclr", 0)
    folder = paths.pseudolabels("simclr", 0)
    with (folder / "sizes.csv").open(newline="") as handle:
        sizes = list(csv.reader(handle))
    table = pq.read_table(folder / "labels.parquet")
    assert table.column_names == ["row", "cluster", "distance", "margin"]
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return read_json(paths.metrics("pseudolabel", "simclr-0")), sizes, columns


def test_labelled_images(capsys):
    labels = fakerun.dataset(paths.PREPARED, {"pool": 60, "train": 50, "test": 30}, CLASSES)
    fakerun.features("simclr", 0, labels, spread=0.05)
    metrics, sizes, columns = run()
    assert metrics.keys() == {
        "clusters", "inertia", "size_min", "size_max", "reseeded", "nmi", "ari", "accuracy", "purity"
    }  # fmt: skip
    assert metrics["clusters"] == 4
    assert [metrics[name] for name in ("nmi", "ari", "accuracy", "purity")] == pytest.approx([1.0] * 4)

    assert columns["row"].tolist() == list(range(140))
    for cluster in range(4):
        assert len(np.unique(labels[columns["cluster"] == cluster])) == 1
    assert sizes[0] == ["cluster", "size", "share", "majority", "purity"]
    counts = [int(line[1]) for line in sizes[1:]]
    assert counts == np.bincount(columns["cluster"]).tolist()
    assert (metrics["size_min"], metrics["size_max"]) == (min(counts), max(counts))
    assert sum(float(line[2]) for line in sizes[1:]) == pytest.approx(1, abs=1e-5)
    assert {line[3] for line in sizes[1:]} == set(CLASSES)
    assert {float(line[4]) for line in sizes[1:]} == {1.0}

    features = torch.from_numpy(np.load(paths.features("simclr", 0) / "features.npy"))
    centroids = torch.from_numpy(np.load(paths.pseudolabels("simclr", 0) / "centroids.npy"))
    again = assign(features, centroids)
    for name, column in zip(("cluster", "distance", "margin"), again, strict=True):
        np.testing.assert_allclose(columns[name], column.numpy(), atol=1e-6)
    assert "140 images in 4 clusters" in capsys.readouterr().out


def test_only_pretraining_rows_make_the_clusters():
    labels = fakerun.dataset(paths.PREPARED, {"pool": 40, "train": 20, "test": 20}, CLASSES)
    fakerun.features("simclr", 0, labels)
    run()
    first = np.load(paths.pseudolabels("simclr", 0) / "centroids.npy")
    file = paths.features("simclr", 0) / "features.npy"
    features = np.load(file)
    features[40:] *= -3
    np.save(file, features)
    run()
    np.testing.assert_array_equal(np.load(paths.pseudolabels("simclr", 0) / "centroids.npy"), first)


def test_the_sheet_shows_the_nearest_then_the_least_sure(monkeypatch):
    labels = fakerun.dataset(paths.PREPARED, {"train": 120, "test": 20}, CLASSES)
    fakerun.features("simclr", 0, labels)
    shown = {}
    real = pseudolabel.contact_sheet

    def spy(images, **words):
        shown.update(images=images, **words)
        return real(images, **words)

    monkeypatch.setattr(pseudolabel, "contact_sheet", spy)
    columns = run()[2]
    images = np.load(paths.PREPARED / "images-00000.npy")
    largest = np.bincount(columns["cluster"]).argmax()
    own = np.flatnonzero(columns["cluster"] == largest)
    nearest = own[columns["distance"][own].argmin()]
    unsure = own[columns["margin"][own].argmin()]
    np.testing.assert_array_equal(shown["images"][0], images[nearest])
    np.testing.assert_array_equal(shown["images"][pseudolabel.NEAREST], images[unsure])
    assert shown["row_labels"][0].startswith(f"{largest}: {len(own)}, ")
    with Image.open(paths.pseudolabels("simclr", 0) / "clusters.png") as sheet:
        assert np.asarray(sheet).std() > 10


def test_without_labels():
    labels = fakerun.dataset(paths.PREPARED, {"pool": 80}, channels=3)
    fakerun.features("simclr", 0, labels, spread=1.0)
    metrics, sizes, _ = run()
    assert metrics.keys() == {"clusters", "inertia", "size_min", "size_max", "reseeded"}
    assert metrics["clusters"] == 10
    assert sizes[0] == ["cluster", "size", "share"]
    assert len(sizes) == 11


def test_five_images(capsys):
    labels = fakerun.dataset(paths.PREPARED, {"pool": 5})
    fakerun.features("simclr", 0, labels, spread=1.0)
    metrics, _, columns = run()
    assert metrics["clusters"] == 5
    assert sorted(columns["cluster"].tolist()) == [0, 1, 2, 3, 4]
    assert "5 distinct features: 5 clusters instead of 10" in capsys.readouterr().out


def test_features_that_are_all_the_same():
    labels = fakerun.dataset(paths.PREPARED, {"train": 12, "test": 6}, CLASSES)
    fakerun.features("simclr", 0, labels)
    np.save(paths.features("simclr", 0) / "features.npy", np.ones((18, 16), dtype=np.float32))
    metrics, sizes, _ = run()
    assert (metrics["clusters"], metrics["nmi"]) == (1, 0)
    assert sizes[1][1] == "18"


def test_more_clusters_than_the_sheet_has_rows():
    labels = fakerun.dataset(paths.PREPARED, {"pool": 70})
    fakerun.features("simclr", 0, labels, spread=1.0)
    (paths.PREPARED.parents[1] / "params.yaml").write_text(PARAMS.replace("restarts: 2", "clusters: 25"))
    assert run()[0]["clusters"] == 25


def test_what_is_wrong_is_said():
    labels = fakerun.dataset(paths.PREPARED, {"pool": 8})
    with pytest.raises(ValueError, match="no features here"):
        run()
    fakerun.features("simclr", 0, labels[:7])
    with pytest.raises(ValueError, match="7 rows for 8 images"):
        run()
    write_json(paths.PREPARED.parents[1] / "params.yaml", {"compute": {}, "pseudolabel": {"metric": "manhattan"}})
    with pytest.raises(ParamsError, match=r"pseudolabel\.metric"):
        run()
