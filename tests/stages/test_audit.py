"""The stage audit, from prepared images to tables, metrics and the report's section."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sslflow import paths
from sslflow.audit.findings import COLUMNS
from sslflow.data.dataset import Dataset
from sslflow.networks.starts import BUILT_IN, write_start
from sslflow.reporting.images import audited
from sslflow.runtime.files import read_csv, read_json, write_json
from sslflow.stages import audit
from tests.conftest import write_dataset

PARAMS = {
    "compute": {"device": "cpu", "threads": 1},
    "extract": {},
    "audit": {},
    "run": {"controls": ["random", "pixels"]},
}


def look(folder: Path, images: np.ndarray, labels: np.ndarray, splits: list[str]) -> Dataset:
    """Prepare the images in `folder`, which is the current one, and run the stage."""
    write_json(folder / "params.yaml", PARAMS)
    dataset = write_dataset(folder / paths.PREPARED, images, labels, splits)
    try:
        audit.main()
    finally:
        torch.use_deterministic_algorithms(False)
    return dataset


def table(name: str) -> list[dict[str, str]]:
    return read_csv(paths.AUDIT / f"{name}.csv", COLUMNS[name])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_planted_faults_are_found_and_shown(here: Path, fashion, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = fashion[0][:400].copy(), fashion[1][:400].copy()
    splits = ["train"] * 300 + ["test"] * 100
    images[:4] = np.roll(images[300:304], 1, axis=3)  # of test images
    labels[:4] = labels[300:304]
    images[4:7] = np.array([0, 99, 255], np.uint8)[:, None, None, None]
    rng = np.random.default_rng(0)
    wrong = np.arange(20, 40)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 20)) % 10
    dataset = look(here, images, labels, splits)
    metrics = read_json(paths.metrics("audit"))

    leaks = {(int(line["row"]), int(line["other_row"])) for line in table("copies") if line["leak"] == "yes"}
    assert {(row, 300 + row) for row in range(4)} <= leaks
    assert metrics["leaked_near"] == len({test for _, test in leaks}) <= 6
    assert {int(line["row"]) for line in table("looks") if line["kind"] == "blank"} == {4, 5, 6}
    suspected = [int(line["row"]) for line in table("suspects")]
    assert len(set(suspected) & set(wrong.tolist())) >= 12
    assert len(suspected) == metrics["suspects"] < 120
    classes = {line["class"]: int(line["train"]) for line in table("classes")}
    assert sum(classes.values()) == 300
    assert metrics["imbalance"] == pytest.approx(max(classes.values()) / min(classes.values()))
    assert "near copies" in capsys.readouterr().out

    section = audited.section(dataset)
    assert section is not None
    assert str(metrics["leaked_near"]) in section.warning
    assert [kind.name.split(maxsplit=1)[1] for kind in section.kinds][:1] == ["near copies of test images"]
    assert all(len(one.pictures) == 2 for one in section.kinds[0].shown)
    assert "pixels" in section.features
    other = write_dataset(here / "other", images[:10], labels[:10], ["train"] * 10)
    assert audited.section(other) is None, "other images than those that were looked at"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda x, y, split: (x, np.full_like(y, -1), split), "There are no labels", id="no labels"),
        pytest.param(lambda x, y, split: (x, np.zeros_like(y), split), "there is 1", id="one class"),
        pytest.param(
            lambda x, y, split: (x, (np.arange(len(y)) == 5).astype(np.int64), split),
            "not judged are those of class 1",
            id="a class with one image",
        ),
        pytest.param(
            lambda x, y, split: (x[:3], y[:3], split[:3]), "too few to call one an outlier", id="three images"
        ),
        pytest.param(lambda x, y, split: (x, y, ["train"] * len(y)), "There are no test images", id="no test images"),
        pytest.param(lambda x, y, split: (np.full_like(x, 9), y, split), "too few", id="all blank"),
    ],
)
def test_what_cannot_be_looked_at_is_said_and_the_rest_is_there(
    here: Path, fashion, change: Callable, said: str
) -> None:
    images, labels = fashion[0][:60].copy(), fashion[1][:60].copy()
    images[1] = np.roll(images[0], 1, axis=2)
    dataset = look(here, *change(images, labels, ["train"] * 50 + ["test"] * 10))
    lines = read_json(paths.AUDIT / "audit.json")["said"]
    assert any(said in line for line in lines), lines
    copies = {(line["row"], line["other_row"]) for line in table("copies")}
    assert (("0", "1") in copies) == bool(dataset.read(np.arange(2))["images"].float().std() > 0)
    assert audited.section(dataset) is not None


def test_a_mixed_set_is_one_sentence(here: Path, fashion) -> None:
    """Images without colour are listed where they are few, and counted where they are many."""
    images = np.repeat(fashion[0][:100], 3, axis=1)
    images[:60, 0] = images[:60, 0] // 2 + 100
    look(here, images, fashion[1][:100], ["train"] * 100)
    (said,) = [line for line in read_json(paths.AUDIT / "audit.json")["said"] if "grey" in line]
    assert said == "40 of 100 images are grey: the set is mixed, and they are not listed one by one."
    assert not [line for line in table("looks") if line["kind"] == "grey"]
    assert read_json(paths.metrics("audit"))["grey"] == 40


def test_no_images(here: Path, fashion) -> None:
    from sslflow.ingest.images.prepare import _nothing

    write_json(here / "params.yaml", PARAMS)
    _nothing(here / paths.PREPARED, 1, 28)
    audit.main()
    torch.use_deterministic_algorithms(False)
    assert "There are no images to look at." in read_json(paths.AUDIT / "audit.json")["said"]
    assert table("copies") == []


def test_features_that_are_not_finite(here: Path, fashion, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(dataset: Dataset, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        features = dataset.read(rows)["images"].flatten(1).float()
        features[torch.from_numpy(rows < 5)] = torch.nan
        return features

    monkeypatch.setattr(audit, "raw", broken)
    look(here, fashion[0][:60], fashion[1][:60], ["train"] * 60)
    (line,) = [line for line in read_json(paths.AUDIT / "audit.json")["said"] if "NaN" in line]
    assert "Features of 5 images" in line
    assert not {int(line["row"]) for line in table("suspects")} & set(range(5))


def test_of_too_many_a_sample_is_compared(here: Path, fashion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMS, "audit", {"most": 40})
    look(here, fashion[0][:60], fashion[1][:60], ["train"] * 60)
    assert read_json(paths.metrics("audit"))["images"] == 40
    assert "A random 40 of the 60 images" in read_json(paths.AUDIT / "audit.json")["said"][0]


def test_weights_that_exist_are_preferred(here: Path, fashion) -> None:
    write_json(here / "params.yaml", {"run": {"controls": ["random", "mine", "pixels"]}})
    dataset = write_dataset(paths.PREPARED, fashion[0][:4], fashion[1][:4], ["train"] * 4)
    for name in BUILT_IN:
        write_start(name, None)  # as the stage scan does
    assert audit.known_by(dataset) == "pixels"
    write_json(paths.start("mine"), {"weights": "x"})
    assert audit.known_by(dataset) == "mine"
