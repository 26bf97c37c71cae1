"""The GPU's benchmark in miniature, on the CPU."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import CPU, MINI, Line, Report
from sslflow.audiovisual import method as clip_methods
from sslflow.training import method as image_methods

SIMCLR = gpu.SMALL_MODELS["simclr, ResNet"]


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
    names = ["images/moco_v2", "images/simclir", "images/deepcluster", "images/mae", "clips/correspondence"]
    asked = report(tmp_path)
    gpu.methods(asked, CPU, MINI, names, ["images/mae", "images/simclir"])
    assert outcomes(asked) == {
        "images/moco_v2": "passed",
        "images/simclir": "error",
        "images/deepcluster": "passed",
        "images/mae": "passed",
        "clips/correspondence": "passed",
        "images/mae, compiled": "passed",
        "images/simclir, compiled": "error",
    }
    assert "did you mean 'simclr'?" in asked.lines[1].note
    assert "did you mean 'simclr'?" in capsys.readouterr().err
    for line in asked.lines[2:5]:
        same = line.values["on the CPU in channels_last, difference of gradient norm"]
        assert line.values["difference of gradient norm"] == same < gpu.TOLERANCE
        assert 0 < line.values["difference of loss in bf16"] < gpu.BF16_TOLERANCE
    assert asked.lines[5].values["graphs"] >= 1

    header, *rows = tables(tmp_path)["methods"]
    assert [header[1], header[2], header[-1]] == ["outcome", "loss", "note"]
    assert [row[:2] for row in rows] == [[line.name, line.outcome] for line in asked.lines]
    assert rows[1][2:-2] == [""] * (len(header) - 4)
    assert "" not in rows[2][2:-3]
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["lines"] == [dataclasses.asdict(line) for line in asked.lines]


def test_a_device_that_computes_something_else_fails(tmp_path, monkeypatch):
    seen = 0
    forward = gpu.OnTheCpu.forward

    def third_step_is_off(views: gpu.OnTheCpu, fields: Any) -> tuple[torch.Tensor, ...]:
        nonlocal seen
        seen += 1
        made = forward(views, fields)
        return tuple(view * 1.2 for view in made) if seen == 3 else made

    monkeypatch.setattr(gpu.OnTheCpu, "forward", third_step_is_off)
    asked = report(tmp_path)
    gpu.methods(asked, CPU, MINI, ["images/denoising"], [])
    (line,) = asked.lines
    assert line.outcome == "failed"
    assert line.note == "beyond the tolerance: difference of loss, difference of gradient norm"
    assert line.values["difference of loss"] > gpu.TOLERANCE
    with pytest.raises(ValueError, match="not finite"):
        gpu.difference(float("nan"), 1.0)


def test_compile_that_compiles_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    asked = report(tmp_path)
    gpu.methods(asked, CPU, MINI, ["images/simclr"], ["images/simclr"])
    assert [(line.outcome, line.note) for line in asked.lines][1] == ("failed", "compile compiled nothing")


def test_lines_that_take_too_long_are_stopped_and_those_after_their_parts_end_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(Report, "LEAST", 0.1)
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
    gpu.speeds(asked, CPU, {"simclr": SIMCLR}, ["simclr"], 0.0)
    assert outcomes(asked) == {"simclr": "done", "simclr, compiled": "done"}
    for line in asked.lines:
        found = line.values
        assert found["batch"] == SIMCLR.batch
        assert 0 < found["images/s"] < found["views alone, images/s"]
        assert found["step : bare"] == pytest.approx(found["bare, images/s"] / found["images/s"])
    assert set(gpu.COMPILED_MODELS) <= set(gpu.MODELS)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    tried = []

    def speed(model: Any, device: Any, compiled: bool, block: float, batch: int, line: Line) -> None:
        tried.append(batch)
        line.values["batch"] = batch
        if batch > 1:
            line.values["images/s"] = -1.0
            raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(gpu, "speed", speed)
    line = Line("speed", "simclr")
    gpu.speed_that_fits(SIMCLR, CPU, False, 0.0, line)
    assert tried == [4, 2, 1]
    assert line.values == {"batch": 1}


@pytest.mark.parametrize(("left", "epochs", "note"), [(1e9, 2, ""), (0.0, 1, "ended after 1 epochs of 2")])
def test_a_training_ends_with_scores_even_where_time_is_short(left, epochs, note, dataset):
    line = Line("training", "simclr")
    gpu.train(dataset, CPU, dataclasses.replace(MINI, epochs=2), lambda: left, line)
    assert line.values["epochs"] == epochs
    assert note in line.note
    assert line.values["images/s"] == pytest.approx(120 / line.values["seconds an epoch"])
    assert 10 < line.values["kNN, %"] <= 100
    assert 10 < line.values["linear, %"] <= 100


def test_training_stands_beside_random_weights(tmp_path, dataset):
    asked = report(tmp_path)
    opened: list[int] = []

    def once() -> Any:
        opened.append(1)
        return dataset

    gpu.training(asked, once, CPU, MINI)
    assert outcomes(asked) == {"random weights": "done", "simclr": "done"}
    assert opened == [1]
    assert tables(tmp_path)["training"][0][2:4] == ["kNN, %", "linear, %"]


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(folder), *words])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    return ended.value.code


def few(*names: str) -> Callable[[], list[str]]:
    return lambda: list(names)


def test_the_command_writes_its_files_and_says_whether_anything_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "compute", lambda device: torch.device(device))
    monkeypatch.setattr(clip_methods, "names", few())
    monkeypatch.setattr(image_methods, "names", few("rotation"))
    words = ["--device", "cpu", "--mini", "--parts", "methods"]
    assert call(monkeypatch, tmp_path / "good", *words) == 0
    assert list(tables(tmp_path / "good")) == ["methods"]
    assert (tmp_path / "good" / "table.md").read_text() in capsys.readouterr().out
    monkeypatch.setattr(image_methods, "names", few("rotation", "none"))
    assert call(monkeypatch, tmp_path / "bad", *words) == 1
    assert [row[1] for row in tables(tmp_path / "bad")["methods"]] == ["outcome", "passed", "error"]


def test_numbers_that_are_not_finite_are_an_error_and_can_be_written(tmp_path):
    asked = report(tmp_path)
    asked.measure("training", "broken", lambda line: line.values.update({"epochs": 2, "last loss": float("nan")}))
    (line,) = json.loads((tmp_path / "results.json").read_text())["lines"]
    assert (line["outcome"], line["note"], line["values"]) == ("error", "not finite: last loss", {"epochs": 2})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(tmp_path, monkeypatch):
    assert "torch finds no usable GPU here" in call(monkeypatch, tmp_path)


def test_what_is_to_be_compiled_is_there():
    known = [f"images/{name}" for name in image_methods.names()] + [f"clips/{name}" for name in clip_methods.names()]
    assert set(gpu.COMPILED) <= set(known)
