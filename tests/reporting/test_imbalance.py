"""The report's section on large and small classes."""

from __future__ import annotations

from pathlib import Path

import fakerun
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.reporting import leaderboard
from sslflow.reporting.answers import Answers
from sslflow.reporting.images.imbalance import section
from sslflow.runtime.files import write_csv, write_metrics
from sslflow.stages import report

CLASSES = ("boot", "bag", "<b>coat</b>", "sock")
TESTED = 10


def prepared(trained: list[int]) -> Dataset:
    """Images to train on, so many of each class, and ten of each to test on."""
    labels = np.concatenate([np.repeat(np.arange(4), trained), np.repeat(np.arange(4), TESTED)])
    fakerun.dataset(paths.PREPARED, {"train": sum(trained), "test": 4 * TESTED}, CLASSES)
    manifest = pq.read_table(paths.PREPARED / "manifest.parquet")
    place = manifest.schema.get_field_index("label")
    pq.write_table(manifest.set_column(place, "label", pa.array(labels)), paths.PREPARED / "manifest.parquet")
    return Dataset()


def answered(name: str, dataset: Dataset, right: list[int]) -> None:
    """Of each class so many of the ten test images are right."""
    lines = []
    for row in dataset.rows("test"):
        label, number = int(dataset.labels[row]), int(row - dataset.rows("test")[0]) % TESTED
        guess = CLASSES[label if number < right[label] else (label + 1) % 4]
        lines.append([row, CLASSES[label], guess, guess])
    write_csv(paths.predictions(name, 0), ["row", "actual", "predicted", "neighbours"], lines)


@pytest.fixture
def board(tmp_path: Path, monkeypatch) -> leaderboard.Board:
    monkeypatch.chdir(tmp_path)
    for name in ("simclr", "random"):
        fakerun.metrics("probe", name, 0, linear=0.6, knn=0.6)
    return leaderboard.collect(["simclr"], [0])


def test_groups_are_told_with_their_classes_and_accuracies(board):
    dataset = prepared([60, 30, 12, 5])
    answered("simclr", dataset, [9, 8, 6, 7])
    answered("random", dataset, [9, 7, 6, 1])
    found = section(board, Answers([0], dataset.groups), dataset, "simclr")
    assert found is not None
    assert "boot has 60 labelled images, sock 5, a factor of 12.0" in found["about"]
    assert found["heads"] == ["many", "medium", "few", "all", "spread"]
    title, control, cells = found["lines"][0]
    assert (title, control) == ("simclr", False)
    assert [cell for cell, _ in cells] == ["90.0", "70.0", "70.0", "75.0", "11.2"]
    assert found["groups"][1][1] == "2 classes of 30 to 12 images to train on, 20 test images: bag, <b>coat</b>."
    assert found["groups"][2][1] == "1 class of 5 images to train on, 10 test images: sock."
    assert found["said"][0].startswith("In the classes with the fewest images simclr is 60.0 points above random")
    assert "chance" not in found["said"][0]


def test_what_may_be_chance_is_called_so(board):
    dataset = prepared([60, 30, 12, 5])
    answered("simclr", dataset, [9, 8, 6, 6])
    answered("random", dataset, [9, 8, 6, 5])
    found = section(board, Answers([0], dataset.groups), dataset, "simclr")
    assert found is not None
    assert "10.0 points above random weights" in found["said"][0]
    assert "which may be chance" in found["said"][0]


def test_a_class_without_an_image_to_train_on_is_named_and_left_out(board):
    dataset = prepared([60, 30, 12, 0])
    answered("simclr", dataset, [10, 10, 10, 0])
    found = section(board, Answers([0], dataset.groups), dataset, "simclr")
    assert found is not None
    assert "Not among them: sock, with none." in found["about"]
    assert [cell for cell, _ in found["lines"][0][2]][-2:] == ["100.0", "0.0"]


@pytest.mark.parametrize("trained", [[30, 30, 30, 30], [30, 25, 20, 16], [30, 0, 0, 0]])
def test_classes_of_about_one_size_need_no_section(board, trained):
    dataset = prepared(trained)
    answered("simclr", dataset, [9, 8, 6, 7])
    assert section(board, Answers([0], dataset.groups), dataset, "simclr") is None


def test_the_page_shows_the_section_and_names_of_classes_stay_text(board):
    dataset = prepared([60, 30, 12, 5])
    answered("simclr", dataset, [9, 8, 6, 7])
    answered("random", dataset, [9, 7, 6, 1])
    write_metrics(paths.metrics("prepare"), {"thinned": 133})
    (paths.ARTIFACTS.parent / "params.yaml").write_text(
        "run: {methods: [simclr], seeds: [0], launch: python -m}\nmethods: {simclr: {}}\nreport: {}\n"
    )
    report.main()
    page = (paths.REPORT / "index.html").read_text()
    assert '<a href="#imbalance">Large and small classes</a>' in page
    assert "factor of 12.0" in page
    assert "bag, &lt;b&gt;coat&lt;/b&gt;" in page
    assert "<b>coat</b>" not in page.split("<script")[0]
    assert "133 labelled images left out by data.imbalance" in page


def test_without_answers_there_is_nothing_to_say(board):
    dataset = prepared([60, 30, 12, 5])
    assert section(board, Answers([0], dataset.groups), dataset, "simclr") is None
