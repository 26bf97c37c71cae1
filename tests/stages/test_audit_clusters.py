"""The stage audit_clusters, from pseudo-labels to tables, metrics and the report's section."""

from __future__ import annotations

from pathlib import Path

import fakerun
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sslflow import paths
from sslflow.ingest.images.named import read_labels
from sslflow.pseudolabels.findings import COLUMNS
from sslflow.reporting.images import pseudolabels as section
from sslflow.runtime.files import read_csv, read_json, write_json
from sslflow.stages import audit_clusters, pseudolabel

CLASSES = ("bag", "boot", "coat", "dress", "hat", "sock")
COUNTS = {"train": 200, "test": 100}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(**changed: object) -> None:
    content = {
        "compute": {"device": "cpu", "threads": 1},
        "run": {"methods": ["simclr"], "seeds": [0]},
        "pseudolabel": {"restarts": 2},
        "audit_clusters": {"rounds": 2, "sample": 200},
    }
    write_json(Path("params.yaml"), {**content, **changed})


def look(*seeds: int) -> dict[str, float]:
    """Run the stages; the metrics."""
    try:
        for seed in seeds:
            pseudolabel.main("simclr", seed)
        audit_clusters.main("simclr")
    finally:
        torch.use_deterministic_algorithms(False)
    return read_json(paths.metrics("audit_clusters", "simclr"))


def table(name: str) -> list[dict[str, str]]:
    return read_csv(paths.clusters("simclr") / f"{name}.csv", COLUMNS[name])


def said() -> str:
    return " ".join(read_json(paths.clusters("simclr") / "audit.json")["said"])


def changed(change) -> None:
    """Other cluster numbers in the file of pseudo-labels."""
    file = paths.clustering("simclr", 0)
    content = pq.read_table(file)
    cluster = change(content["cluster"].to_numpy().copy())
    pq.write_table(pa.table({"cluster": cluster, "confidence": content["confidence"]}), file)


def test_classes_that_lie_apart_are_found_again_and_right(here: Path) -> None:
    labels = fakerun.dataset(paths.PREPARED, COUNTS, CLASSES)
    for seed in (0, 1):
        fakerun.features("simclr", seed, labels, spread=0.3)
    settings(run={"methods": ["simclr"], "seeds": [0, 1]})
    metrics = look(0, 1)
    assert metrics["accuracy"] == metrics["agreed_over_rounds"] == metrics["agreed_over_seeds"] == 1
    of_test, of_train = labels[COUNTS["train"] :], labels[: COUNTS["train"]]
    assert metrics["largest_class"] == np.mean(of_test == np.bincount(of_train).argmax())
    assert metrics["nmi_over_seeds"] == pytest.approx(1)
    assert metrics["few_low"] < metrics["few_accuracy"] == 1
    assert metrics["suggested"] == 6
    assert metrics["suspects"] == 0
    assert {line["class"] for line in table("clusters")} == set(CLASSES)
    assert {line["found"] for line in table("clusters")} == {""}
    assert sum(int(line["images"]) for line in table("reliability")) == 2 * 100, "of each seed"
    assert len(read_labels(paths.clusters("simclr") / "to_label.csv")) == 100, "as data.labels takes it"
    assert not {f"picture {row}.png" for row in range(200, 300)} & {line["path"] for line in table("to_label")}

    (shown,) = section.section(["simclr", "byol"], "simclr", "images")
    assert shown.sentences[0].startswith("100 % (")
    assert len(shown.charts) == 3
    assert shown.reliability is not None
    assert shown.sheet is not None


def test_planted_faults_are_found(here: Path) -> None:
    labels = fakerun.dataset(paths.PREPARED, {"train": 400, "test": 100}, CLASSES)
    fakerun.features("simclr", 0, labels, spread=0.3)
    settings()
    look(0)
    before = pq.read_table(paths.clustering("simclr", 0))["cluster"].to_numpy().copy()

    def looked_at(change) -> list[dict[str, str]]:
        changed(lambda cluster: change(before.copy()))
        audit_clusters.main("simclr")
        return table("clusters")

    merged = looked_at(lambda cluster: np.where(cluster == 4, 1, cluster))
    found = {line["cluster"]: line["found"] for line in merged if line["found"]}
    assert found.keys() == {"1", "4"}
    assert found["1"].startswith("two in one?")
    assert found["4"] == "empty"

    half = np.arange(500) % 2 == 0
    split = looked_at(lambda cluster: np.where((cluster == 4) & half, 2, np.where(cluster == 2, 3, cluster)))
    found = {line["cluster"]: line["found"] for line in split}
    assert "the same as 4?" in found["2"]
    assert "the same as 2?" in found["4"]
    assert "two in one?" in found["3"]

    wrong = np.arange(0, 500, 20)

    def shuffled(cluster: np.ndarray) -> np.ndarray:
        cluster[wrong] = (cluster[wrong] + 1) % 6
        return cluster

    looked_at(shuffled)
    suspected = [int(line["row"]) for line in table("suspects")]
    assert set(suspected) == set(wrong.tolist())
    assert all(line["reasons"].startswith("nearer to cluster") for line in table("suspects"))


def test_a_label_unlike_those_of_its_cluster_is_suspected(here: Path) -> None:
    labels = fakerun.dataset(paths.PREPARED, COUNTS, CLASSES)
    fakerun.features("simclr", 0, labels, spread=0.3)
    settings()
    file = paths.PREPARED / "manifest.parquet"
    content, wrong = pq.read_table(file), np.arange(0, 300, 30)
    labels[wrong] = (labels[wrong] + 1) % 6
    pq.write_table(content.set_column(content.schema.get_field_index("label"), "label", pa.array(labels)), file)
    look(0)
    assert {int(line["row"]) for line in table("suspects")} == set(wrong.tolist())
    assert {line["reasons"] for line in table("suspects")} == {"its label is another"}


@pytest.mark.parametrize(
    ("counts", "classes", "words"),
    [
        pytest.param({"pool": 120}, (), "There are no labels", id="no labels"),
        pytest.param({"train": 80, "test": 40}, ("bag",), "All labels are bag", id="one class"),
        pytest.param({"train": 120}, CLASSES, "no labelled test images", id="no test images"),
        pytest.param({"pool": 1}, (), "fewer than two images", id="one image"),
        pytest.param({"pool": 3}, (), "", id="fewer images than clusters"),
    ],
)
def test_what_cannot_be_looked_at_is_said_and_the_rest_is_there(
    here: Path, counts: dict[str, int], classes: tuple[str, ...], words: str
) -> None:
    labels = fakerun.dataset(paths.PREPARED, counts, classes)
    fakerun.features("simclr", 0, labels)
    settings()
    metrics = look(0)
    assert words in said()
    assert ("accuracy" in metrics) == (bool(classes) and "test" in counts)
    (shown,) = section.section(["simclr"], "simclr", "images")
    assert shown.sentences
    if sum(counts.values()) > 3:
        assert metrics["agreed_over_rounds"] > 0
        assert len(table("clusters")) == metrics["clusters"]


def test_features_that_are_not_finite_are_left_out(here: Path) -> None:
    labels = fakerun.dataset(paths.PREPARED, COUNTS, CLASSES)
    fakerun.features("simclr", 0, labels, spread=0.3)
    settings()
    look(0)
    file = paths.features("simclr", 0) / "features.npy"
    features = np.load(file)
    features[:3] = np.nan
    np.save(file, features)
    assert look()["not_finite"] == 3
    assert "Features of 3 images are NaN" in said()
    assert not {int(line["row"]) for line in table("suspects")} & {0, 1, 2}


def test_all_images_the_same(here: Path) -> None:
    labels = fakerun.dataset(paths.PREPARED, {"train": 60, "test": 20}, CLASSES)
    fakerun.features("simclr", 0, labels)
    np.save(paths.features("simclr", 0) / "features.npy", np.ones((80, 16), np.float32))
    settings()
    metrics = look(0)
    assert (metrics["clusters"], metrics["suggested"]) == (1, 0)
    assert "There is one cluster" in said()


def test_what_is_not_there_is_said(here: Path) -> None:
    labels = fakerun.dataset(paths.PREPARED, COUNTS, CLASSES)
    fakerun.features("simclr", 0, labels)
    settings(run={"methods": ["simclr"], "seeds": [0, 1]})
    with pytest.raises(ValueError, match="seed 1 of simclr is not finished"):
        look(0)
    assert section.section(["simclr"], "simclr", "images") == []
    settings()
    changed(lambda cluster: cluster)
    file = paths.clustering("simclr", 0)
    pq.write_table(pq.read_table(file).slice(0, 10), file)
    with pytest.raises(ValueError, match="10 rows for 300 examples"):
        look()


def test_a_number_of_clusters_that_the_sample_is_too_small_for_is_said(here: Path) -> None:
    labels = fakerun.dataset(paths.PREPARED, COUNTS, CLASSES)
    fakerun.features("simclr", 0, labels, spread=0.3)
    settings(audit_clusters={"rounds": 1, "sample": 100})
    look(0)
    suggestion = read_json(paths.clusters("simclr") / "audit.json")["suggestion"]
    assert "The number there is now, 6, lies beyond what was tried" in suggestion
    assert "audit_clusters.sample: 120 tries it" in suggestion
    assert "6" not in {line["clusters"] for line in table("numbers")}
