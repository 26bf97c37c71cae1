"""The table of masks and boxes: what is said of made-up runs, and that nothing of other settings is kept."""

from __future__ import annotations

import itertools
import json

import fakewhere
import numpy as np
import pytest

from benchmarks import dense, dense_runs
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.examination.where.found import Way
from sslflow.runtime.files import write_json

RIGHT = {
    "random weights": {("linear", 0.1): 0.3, ("frozen", 0.1): 0.3},
    "from scratch": {("tuned", 0.01): 0.3, ("tuned", 0.1): 0.5},
    "lite0": {("linear", 0.1): 0.8, ("frozen", 0.1): 0.6, ("tuned", 0.01): 0.6, ("tuned", 0.1): 0.7},
    "simclr": {("linear", 0.1): 0.6, ("frozen", 0.1): 0.7, ("tuned", 0.01): 0.3, ("tuned", 0.1): 0.95},
}


def add(row: str, seed: int, pointing: float = 0.5, device: str = "cpu") -> None:
    """What a run of a row leaves behind."""
    dataset, right = Dataset(dense_runs.WORK / "prepared"), RIGHT[row]
    rows, name = dataset.annotated_rows(TEST, "mask"), dense_runs.ROWS[row].name
    assert dataset.truth
    masks, things = dataset.truth.masks(rows).numpy(), dataset.truth.things(rows)
    job = dense_runs.Job(row, seed, device)
    dense_runs.make_folder(job)
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(job.folder)
        fakewhere.segmented(name, seed, masks, rows, right)
        own = {way: share for way, share in right.items() if way[0] != "linear"}
        fakewhere.detected(name, seed, things, rows, own, pointing)
    result = dense_runs.kept(job) | {"commit": "abc1234", "code": {"sslflow.dense.rows": "1"}}
    result |= {"machine": "a GPU, torch 2"} if device == "cuda" else {}
    write_json(job.result, result | {"seconds": dict.fromkeys(dense_runs.ROWS[row].stages, 12.0)})
    dense.found.cache_clear()


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
    for row in ("from scratch", "lite0", "simclr"):
        add(row, 0)


def cells(lines: list[str], table: str, row: str) -> list[str]:
    """Of a row of the table that begins so."""
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {table}"))
    return next(line for line in lines[start:] if line.startswith(f"| {row} |")).strip("| ").split(" | ")


def test_rows_are_compared_seed_by_seed_and_fewer_pairs_are_said(made):
    dense_runs.Job("simclr", 0).result.unlink()
    for row, seed, pointing in (
        ("simclr", 1, 1.0),
        ("simclr", 2, 1.0),
        ("random weights", 0, 0.0),
        ("random weights", 1, 1.0),
        ("random weights", 3, 0.0),
        ("from scratch", 2, 0.5),
        ("lite0", 1, 0.5),
    ):
        add(row, seed, pointing)
    tables = dense.Tables([0, 1, 2, 3])
    lines = list(tables.lines())
    hits = cells(lines, "Localised without a label", "simclr")
    # Both have seed 1 alone, and point at things in all images with it.
    assert hits[1] == "2"
    assert hits[-1].startswith("+0.0 (")
    assert hits[-1].endswith("; 1 of 2 seeds)")
    assert "seeds" not in hits[3]
    told = cells(lines, "Masks, mIoU, 10 % of the labels", "simclr")
    for other, cell, seed in (("from scratch", told[5], 2), ("lite0", told[6], 1)):
        ours, theirs = (tables.scores(row, "miou", Way("tuned", 0.1))[seed] for row in ("simclr", other))
        once = np.ones((1, fakewhere.COUNTS["test"]))
        gap, expected = tables.gap("simclr", other, "miou", Way("tuned", 0.1)), (ours(once) - theirs(once)).item()
        assert gap
        assert gap.mean == pytest.approx(expected)
        assert cell.strip("*").startswith(f"{100 * expected:+.1f} (")
        assert "; 1 of 2 seeds)" in cell


def test_a_seed_that_finds_nothing_keeps_its_place(made):
    for seed in (1, 2):
        add("simclr", seed)
        add("from scratch", seed)
    job, rows = dense_runs.Job("simclr", 2), Dataset(dense_runs.WORK / "prepared").annotated_rows(TEST, "boxes")
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(job.folder)
        fakewhere.nothing_detected("simclr", 2, rows, [("frozen", 0.1), ("tuned", 0.01), ("tuned", 0.1)])
    tables = dense.Tables([0, 1, 2])
    lines = list(tables.lines())
    titles: dict[dense.Metric, str] = {"map": "Boxes, mAP", "map50": "Boxes, mAP50"}
    for metric, title in titles.items():
        told = cells(lines, f"{title}, 10 % of the labels", "simclr")
        for protocol, cell in (("frozen", told[2]), ("tuned", told[3])):
            scores = tables.scores("simclr", metric, Way(protocol, 0.1))
            values = [100 * score(np.ones((1, len(rows)))).item() for score in scores.values()]
            assert (len(values), values[2]) == (3, 0.0)
            assert cell.startswith(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}")
        assert "seeds" not in told[4]


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
    both = itertools.product(dense_runs.ROWS, (0, 1), dense_runs.DEVICES)
    jobs = [dense_runs.Job(row, seed, device) for row, seed, device in both]
    assert len({dense_runs.key(job) for job in jobs}) == len(jobs)


def test_runs_on_a_gpu_stand_in_tables_of_their_own_with_the_costs_of_those_on_a_cpu(made):
    assert dense.Tables([0], "cuda").rows == []
    assert dense_runs.Job("simclr", 0, "cuda").folder != dense_runs.Job("simclr", 0).folder
    for row in ("from scratch", "simclr"):
        add(row, 0, device="cuda")
    lines = list(dense.Tables([0], "cuda").lines())
    assert lines[0].startswith("a GPU, torch 2; ")
    assert not any(line.startswith("| lite0 | 1 |") for line in lines)
    assert "| lite0 | – | 12 | 12 |" in lines
    assert "no GPU" in next(dense.Tables([0]).lines())
    assert "device: cuda" in (dense_runs.Job("simclr", 0, "cuda").folder / "params.yaml").read_text()


def test_tables_of_what_is_there_know_today_s_settings(made, monkeypatch):
    recipe = dense_runs.load(dense_runs.ROOT / "recipes/scenes.yaml")
    recipe["segment"]["epochs"] += 1
    monkeypatch.setattr(dense_runs, "load", lambda file: recipe)
    dense_runs.of_row.cache_clear()
    assert dense_runs.measured(dense_runs.Job("simclr", 0)) is None
    assert dense.Tables([0]).rows == []
