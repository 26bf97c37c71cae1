"""The table of masks and boxes: what is said of made-up runs, and that nothing of other settings is kept."""

from __future__ import annotations

import json

import fakewhere
import pytest

from benchmarks import dense, dense_runs
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.runtime.files import write_json

RIGHT = {
    "from scratch": {("tuned", 0.01): 0.3, ("tuned", 0.1): 0.5},
    "lite0": {("linear", 0.1): 0.8, ("frozen", 0.1): 0.6, ("tuned", 0.01): 0.6, ("tuned", 0.1): 0.7},
    "simclr": {("linear", 0.1): 0.6, ("frozen", 0.1): 0.7, ("tuned", 0.01): 0.3, ("tuned", 0.1): 0.95},
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Three rows with one seed, on ten scenes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dense_runs, "WORK", tmp_path / "work")
    monkeypatch.setattr(dense_runs, "make", lambda *_: None)
    monkeypatch.setattr(dense, "code", lambda row: {"sslflow.dense.rows": "1"})
    for one in (dense.found, dense_runs.of_row):
        one.cache_clear()
    fakewhere.scenes()
    paths.PREPARED.rename(tmp_path / "scenes")
    (tmp_path / "work").mkdir()
    (tmp_path / "scenes").rename(tmp_path / "work/prepared")
    dataset = Dataset(tmp_path / "work/prepared")
    rows = dataset.annotated_rows(TEST, "mask")
    assert dataset.truth
    masks, things = dataset.truth.masks(rows).numpy(), dataset.truth.things(rows)
    for row, right in RIGHT.items():
        job = dense_runs.Job(row, 0)
        dense_runs.make_folder(job)
        with monkeypatch.context() as inside:
            inside.chdir(job.folder)
            fakewhere.segmented(dense_runs.ROWS[row].name, 0, masks, rows, right)
            own = {way: share for way, share in right.items() if way[0] != "linear"}
            fakewhere.detected(dense_runs.ROWS[row].name, 0, things, rows, own)
        result = dense_runs.kept(job) | {"commit": "abc1234", "code": {"sslflow.dense.rows": "1"}}
        write_json(job.result, result | {"seconds": dict.fromkeys(dense_runs.ROWS[row].stages, 12.0)})


def test_the_tables_say_what_is_above_scratch_and_above_weights(made):
    lines = list(dense.Tables([0, 1]).lines())
    (head,) = (line for line in lines if line.startswith("| Masks, mIoU, 10 % of the labels"))
    rows = {line.split(" | ")[0]: line for line in lines[lines.index(head) :][:5]}
    cells = rows["| simclr"].strip("| ").split(" | ")
    assert cells[1] == "1"
    assert cells[5].startswith("**+")
    assert rows["| from scratch"].strip("| ").split(" | ")[2:4] == ["–", "–"]
    said = [line for line in lines if line.startswith("- Fine-tuned, beside the same network from scratch: ")]
    assert len(said) == 6
    assert said[1].endswith("above it: simclr.")
    assert any(line.startswith("| Localised without a label") for line in lines)
    assert "| simclr | 12 | 12 | 12 |" in lines
    assert "random weights" not in "\n".join(lines[: lines.index(head)])


def test_rows_of_other_code_are_marked(made, monkeypatch):
    monkeypatch.setattr(dense, "code", lambda row: {"sslflow.dense.rows": "2"})
    lines = list(dense.Tables([0]).lines())
    assert any(line.startswith("| simclr ‡ | 1 |") for line in lines)
    assert "simclr (abc1234: dense.rows)" in lines[-1]


def test_a_row_of_other_settings_or_half_done_counts_for_nothing(made):
    job = dense_runs.Job("simclr", 0)
    assert dense_runs.measured(job)
    whole = json.loads(job.result.read_text())
    write_json(job.result, whole | {"seconds": {"pretrain": 1.0, "segment": 1.0}})
    assert dense_runs.measured(job) is None
    assert set(dense_runs.kept(job)["seconds"]) == {"pretrain", "segment"}
    write_json(job.result, whole | {"key": "other"})
    assert dense_runs.kept(job)["seconds"] == {}


def test_rows_differ_in_what_they_read(made):
    jobs = [dense_runs.Job(row, seed) for row in dense_runs.ROWS for seed in (0, 1)]
    assert len({dense_runs.key(job) for job in jobs}) == len(jobs)


def test_tables_of_what_is_there_know_today_s_settings(made, monkeypatch):
    recipe = dense_runs.load(dense_runs.ROOT / "recipes/scenes.yaml")
    recipe["segment"]["epochs"] += 1
    monkeypatch.setattr(dense_runs, "load", lambda file: recipe)
    dense_runs.of_row.cache_clear()
    assert dense_runs.measured(dense_runs.Job("simclr", 0)) is None
    assert dense.Tables([0]).rows == []
