"""The GPU's benchmark in miniature, on the CPU."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_methods, gpu_others, gpu_report, gpu_speed, gpu_subjects, gpu_training
from benchmarks.gpu_methods import CPU
from benchmarks.gpu_report import LeftOut, Line, Report
from benchmarks.gpu_subjects import MINI

SIMCLR = gpu_speed.SMALL.models["simclr, ResNet"]
SET = gpu_training.Set({}, gpu_training.SMALL)


def report(folder: Path, seconds: float = 300.0) -> Report:
    return Report(folder, seconds, {"machine": "here", "date": "today"})


def outcomes(of: Report) -> dict[str, str]:
    return {line.name: line.outcome for line in of.lines}


def tables(folder: Path) -> dict[str, list[list[str]]]:
    """Cells of the Markdown tables, by part: every row has as many as the first."""
    found: dict[str, list[list[str]]] = {}
    for part in (folder / "table.md").read_text(encoding="utf-8").split("\n### ")[1:]:
        rows = [line.strip("|").split(" | ") for line in part.splitlines() if line.startswith("| ")]
        assert {len(row) for row in rows} == {len(rows[0])}
        found[part.splitlines()[0]] = [[cell.strip() for cell in row] for row in rows]
    return found


@pytest.fixture
def eager(monkeypatch):
    """`torch.compile` that traces graphs and runs them as they are."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def test_methods_are_compared_and_a_line_that_fails_is_not_the_end(tmp_path, eager, capsys):
    names = ["images/moco_v2", "images/simclir", "images/mae", "clips/correspondence", "text/bert", "images/clip"]
    asked = report(tmp_path)
    gpu_methods.methods(asked, CPU, MINI, names, ["images/mae", "images/simclir"])
    assert outcomes(asked) == {
        "images/moco_v2": "passed",
        "images/simclir": "error",
        "images/mae": "passed",
        "clips/correspondence": "passed",
        "text/bert": "passed",
        "images/clip": "passed",
        "images/mae, compiled": "passed",
        "images/simclir, compiled": "error",
    }
    assert "did you mean 'simclr'?" in asked.lines[1].note
    assert "did you mean 'simclr'?" in capsys.readouterr().err
    for line in asked.lines[2:6]:
        same = line.values["on the CPU in channels_last, difference of gradient norm"]
        assert line.values["difference of gradient norm"] == same < gpu_report.TOLERANCE
        assert 0 < line.values["difference of loss in bf16"] < gpu_report.BF16_TOLERANCE
    assert asked.lines[6].values["graphs"] >= 1

    header, *rows = tables(tmp_path)["methods"]
    assert [header[1], header[2], header[-1]] == ["outcome", "loss", "note"]
    assert [row[:2] for row in rows] == [[line.name, line.outcome] for line in asked.lines]
    assert rows[1][2:-2] == [""] * (len(header) - 4)
    assert "" not in rows[2][2:-3]
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["lines"] == [dataclasses.asdict(line) for line in asked.lines]


def test_a_device_that_computes_something_else_fails(tmp_path, monkeypatch):
    seen = 0
    forward = gpu_methods.OnTheCpu.forward

    def third_step_is_off(views: gpu_methods.OnTheCpu, fields: Any) -> tuple[torch.Tensor, ...]:
        nonlocal seen
        seen += 1
        made = forward(views, fields)
        return tuple(view * 1.2 for view in made) if seen == 3 else made

    monkeypatch.setattr(gpu_methods.OnTheCpu, "forward", third_step_is_off)
    asked = report(tmp_path)
    gpu_methods.methods(asked, CPU, MINI, ["images/denoising"], [])
    (line,) = asked.lines
    assert line.outcome == "failed"
    assert line.note == "beyond the tolerance: difference of loss, difference of gradient norm"
    assert line.values["difference of loss"] > gpu_report.TOLERANCE
    with pytest.raises(ValueError, match="not finite"):
        gpu_methods.difference(float("nan"), 1.0)


def test_compile_that_compiles_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    asked = report(tmp_path)
    gpu_methods.methods(asked, CPU, MINI, ["images/simclr"], ["images/simclr"])
    assert [(line.outcome, line.note) for line in asked.lines][1] == ("failed", "compile compiled nothing")


def test_lines_that_take_too_long_are_stopped_and_those_after_their_parts_end_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "LEAST", 0.1)
    asked, started = report(tmp_path, 1000.0), time.monotonic()

    def slow(line: Line) -> None:
        line.values["batch"] = 4
        time.sleep(60)

    asked.measure("speed", "slow", slow, 0.2)
    asked.started -= 900.0
    asked.measure("speed", "late", slow)
    asked.measure("training", "quick", lambda line: None)
    assert time.monotonic() - started < 20
    assert outcomes(asked) == {"slow": "out of time", "late": "out of time", "quick": "done"}
    assert [line.note for line in asked.lines] == ["stopped after 0.2 s", "not begun", ""]
    assert asked.lines[0].values["batch"] == 4
    assert list(tables(tmp_path)) == ["speed", "training"]


def test_speed_is_that_of_the_whole_step_beside_the_bare_one(tmp_path, eager):
    asked = report(tmp_path)
    few = dataclasses.replace(
        gpu_speed.SMALL, models={"simclr": SIMCLR}, compiled=("simclr",), resident=("simclr",), lightly=()
    )
    gpu_speed.speeds(asked, CPU, few, 1)
    assert outcomes(asked) == {
        "simclr": "done",
        "simclr, resident": "done",
        "AdamW alone: simclr": "done",
        "stable_pretraining": "left out",
        "simclr, compiled": "done",
    }
    assert asked.lines[1].values["images/s"] > 0
    for line in (asked.lines[0], asked.lines[-1]):
        found = line.values
        assert found["batch"] == SIMCLR.batch
        assert found["images/s"] > 0
        assert found["step : bare"] == pytest.approx(found["bare, images/s"] / found["images/s"])
    for asked_for in (gpu_speed.FULL, gpu_speed.SMALL):
        assert {*asked_for.compiled, *asked_for.resident, *asked_for.lightly} <= set(asked_for.models)


def test_lightly_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightly", None)
    monkeypatch.setattr(gpu_speed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LeftOut, match="lightly is not installed"):
        gpu_speed.beside_lightly(report(tmp_path), "simclr", SIMCLR, CPU, 1, Line("speed", "simclr"))


def test_a_batch_that_does_not_fit_is_halved():
    tried = []

    def speed(model: Any, batch: int, line: Line) -> None:
        tried.append(batch)
        line.values["batch"] = batch
        if batch > 1:
            line.values["images/s"] = -1.0
            raise torch.OutOfMemoryError("too large")

    line = Line("speed", "simclr")
    gpu_speed.that_fits(speed, SIMCLR, line)
    assert tried == [4, 2, 1]
    assert line.values == {"batch": 1}


def test_the_device_and_the_cpu_give_the_same_answers(tmp_path):
    asked = report(tmp_path)
    gpu_others.others(asked, CPU, tmp_path, gpu_others.SMALL)
    assert outcomes(asked) == {"JPEG shards": "done", "K-means": "done", "nearest neighbours": "done"}
    jpeg, clusters, neighbours = asked.lines
    assert "differ by 0.00" in jpeg.note
    assert clusters.values["difference of inertia"] == 0
    assert neighbours.values["answers alike, %"] == 100


@pytest.mark.parametrize(("left", "epochs", "note"), [(1e9, 2, ""), (0.0, 1, "")])
def test_a_training_has_as_many_epochs_as_there_is_time_for(left, epochs, note, dataset):
    line = Line("training", "simclr")
    gpu_training.train(dataset, dataclasses.replace(SET, epochs=2), CPU, lambda: left, line)
    assert line.values["epochs"] == epochs
    assert note in line.note
    assert line.values["images/s"] == pytest.approx(120 / line.values["seconds an epoch"])
    assert 10 < line.values["kNN, %"] <= 100
    assert 10 < line.values["linear, %"] <= 100


def test_a_training_that_takes_longer_than_was_reckoned_ends_with_scores(dataset):
    line, asked = Line("training", "simclr"), iter([1e9])
    gpu_training.train(dataset, dataclasses.replace(SET, epochs=2), CPU, lambda: next(asked, 0.0), line)
    assert line.values["epochs"] == 1
    assert "ended after 1 epochs of 2" in line.note
    assert line.values["linear, %"] > 10


def test_trainings_stand_beside_random_weights(tmp_path, monkeypatch, dataset):
    asked = report(tmp_path)
    found = gpu_training.Sets(tmp_path, {"one": dataclasses.replace(SET, epochs=1)})
    monkeypatch.setattr(found, "opened", lambda name: dataset)
    gpu_training.training(asked, found, CPU)
    assert outcomes(asked) == {"one: random weights": "done", "one: simclr": "done"}
    assert tables(tmp_path)["training"][0][2:6] == ["images", "prepared in, s", "kNN, %", "linear, %"]


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(folder), *words])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    return ended.value.code


def test_the_command_writes_its_files_and_says_whether_anything_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "compute", lambda device, threads: torch.device(device))
    words = ["--device", "cpu", "--mini", "--parts", "methods", "--jobs", "0"]
    monkeypatch.setattr(gpu_subjects, "all_names", lambda: ["text/masked_lm"])
    assert call(monkeypatch, tmp_path / "good", *words) == 0
    assert list(tables(tmp_path / "good")) == ["methods"]
    assert (tmp_path / "good" / "table.md").read_text() in capsys.readouterr().out
    monkeypatch.setattr(gpu_subjects, "all_names", lambda: ["images/none"])
    assert call(monkeypatch, tmp_path / "bad", *words) == 1
    assert [row[1] for row in tables(tmp_path / "bad")["methods"]] == ["outcome", "error"]


def die(name: str, compiled: bool) -> list[Line]:
    if name == "dies":
        os._exit(1)
    return [Line("methods", name, "passed")]


def test_a_method_that_brings_its_process_down_is_a_line(tmp_path):
    asked = report(tmp_path)
    names = ["first", "dies"]
    lost = gpu_methods._side_by_side(asked, names, (), die, CPU, 1, time.time() + 100, again=False)
    assert "dies" in lost
    assert outcomes(asked)["dies"] == "error"
    assert "abruptly" in asked.lines[-1].note


def test_numbers_that_are_not_finite_are_an_error_and_can_be_written(tmp_path):
    asked = report(tmp_path)
    asked.measure("training", "broken", lambda line: line.values.update({"epochs": 2, "last loss": float("nan")}))
    (line,) = json.loads((tmp_path / "results.json").read_text())["lines"]
    assert (line["outcome"], line["note"], line["values"]) == ("error", "not finite: last loss", {"epochs": 2})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(tmp_path, monkeypatch):
    assert "torch finds no usable GPU here" in call(monkeypatch, tmp_path)


def test_every_method_has_a_line():
    known = gpu_subjects.all_names()
    assert set(gpu_methods.COMPILED) <= set(known)
    assert {"images/clip", "text/word2vec", "volumes/rubik", "clips/synchrony"} <= set(known)


def test_seconds_of_an_epoch_are_reckoned_from_its_own_steps(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(gpu_training.time, "perf_counter", lambda: 100.0 + next(now))
    monkeypatch.setattr(gpu_training, "TRIAL", 5.0)
    run = (SimpleNamespace(number=number, steps=50) for number in range(1, 50))
    assert 45 <= gpu_training.trial(run, CPU) <= 65, "a step takes a second"
