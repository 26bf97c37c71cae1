"""The report of a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import fakerun
import pytest

from sslflow import paths
from sslflow.commands.report_now import PAGE, report_now, so_far
from sslflow.reporting.so_far import Line
from sslflow.runtime.files import write_csv, write_json

PARAMS = """
run: {methods: [rotation, simclr], seeds: [0], launch: python -m}
report: {map_images: 60, queries: 3, neighbour_count: 4}
methods: {simclr: {temperature: 0.2}, rotation: {}}
"""
UNFINISHED = [
    Line("pretrain@simclr-0", "running", "its last line"),
    Line("extract@simclr-0", "waiting", "never ran"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.nice", lambda more: None)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / paths.SAMPLES).mkdir(parents=True)
    return tmp_path


def journal(step: int, *losses: float) -> None:
    place = paths.WORK / "pretrain/1"
    write_csv(place / "curve.csv", ["step", "loss"], list(enumerate(losses)))
    facts = {"run": "pretrain simclr-0", "step": step, "steps": 100, "seconds": 60.0}
    write_json(place / "journal.json", {**facts, "choices": {"count": 4, "among": "views"}})


def files() -> set[Path]:
    return {file for file in Path().rglob("*") if file.is_file()}


def test_it_shows_what_is_up_to_date_and_trainings_in_the_middle(folder: Path) -> None:
    fakerun.whole(["rotation", "simclr"], [0], ("boot", "bag", "coat"), {"train": 90, "test": 30})
    journal(50, 1.5, 1.4, 1.2)
    present = [str(paths.PREPARED), *map(str, (paths.metrics("probe", "rotation-0"), paths.curve("rotation", 0)))]
    before = files()
    assert report_now(present, so_far(30, UNFINISHED)) == PAGE
    page = PAGE.read_text()
    assert "28 of 30 stages are up to date" in page
    assert "step 50 of 100, about 60s left" in page
    assert "Loss of simclr by step: seed 0 ends at 1.2" in page
    assert "rotation: a linear classifier" in page, "the leaderboard of what has been probed"
    assert "simclr, linear: 0 of 1 seeds" in page, "what is not up to date is not shown, though its files are there"
    assert 'id="map"' not in page
    assert files() - before == {PAGE}, "nothing else is written, and nothing left behind"


def test_a_sick_training_is_said_to_be(folder: Path) -> None:
    fakerun.dataset(paths.PREPARED, {"pool": 30})
    journal(50, 1.5, float("nan"))
    report_now([str(paths.PREPARED)], so_far(30, UNFINISHED))
    assert "The run has diverged" in PAGE.read_text()


def test_a_training_that_was_stopped(folder: Path) -> None:
    journal(50, 1.5, 1.4)
    told = so_far(30, [Line("pretrain@simclr-0", "waiting", "never ran")])
    assert [(line.state, line.words) for line in told.lines] == [
        ("stopped", "at step 50 of 100; resumed from its checkpoint, if it still fits")
    ]


def test_before_any_image_is_prepared(folder: Path) -> None:
    report_now([], so_far(3, [Line("prepare", "running", "prepare  200 images <b>")]))
    page = PAGE.read_text()
    assert "Nothing is prepared yet." in page
    assert "prepare  200 images &lt;b&gt;" in page


def test_links_are_gone_where_it_fails(folder: Path) -> None:
    fakerun.dataset(paths.PREPARED, {"pool": 30})
    (paths.PREPARED / "dataset.json").write_text(json.dumps({"kind": "images"}))
    with pytest.raises(ValueError, match="damaged"):
        report_now([str(paths.PREPARED)], so_far(3, UNFINISHED))
    assert Path.cwd() == folder
    assert list(paths.WORK.iterdir()) == []
