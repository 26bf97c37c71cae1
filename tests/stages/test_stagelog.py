"""What a stage writes down of itself for programs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sslflow import stagelog
from sslflow.progress import Progress
from sslflow.stages.entry import run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pretrain.py", "a", "0"])
    monkeypatch.setenv("DVC_STAGE", "pretrain@a-0")


def lines(stage: str = "pretrain@a-0") -> list[dict]:
    return [json.loads(line) for line in Path(f"work/logs/{stage}.jsonl").read_text().splitlines()]


def trained(method: str, seed: int) -> None:
    progress = Progress("pretrain", 80, "step", 20)
    for step in (40, 41, 80):
        progress.say(step, f"loss {step}")


def test_a_start_progress_and_an_end() -> None:
    run(trained, str, int)
    first, early, late, last = lines()
    assert [line["event"] for line in (first, early, late, last)] == ["started", "progress", "progress", "ended"]
    assert (first["pid"], first["host"]) == (os.getpid(), socket.gethostname())
    assert (early["done"], late["done"], late["of"], late["unit"], late["left_s"]) == (40, 80, 80, "step", 0)
    assert early["per_second"] > 0, "of the steps since it was resumed"
    assert late["said"] == "loss 80"
    assert late["memory"] > 10e6
    assert last["code"] == 0
    assert last["seconds"] < 20
    assert {line["stage"] for line in lines()} == {"pretrain@a-0"}


def refused(method: str, seed: int) -> None:
    raise ValueError("train.lr: expected a number above 0")


def interrupted(method: str, seed: int) -> None:
    raise KeyboardInterrupt


def faulty(method: str, seed: int) -> None:
    raise TypeError("no such thing")


@pytest.mark.parametrize(
    ("main", "raised", "code", "said"),
    [
        (refused, SystemExit, 1, "train.lr: expected a number above 0"),
        (interrupted, SystemExit, 130, "stopped"),
        (faulty, TypeError, 1, "TypeError: no such thing"),
    ],
)
def test_how_it_failed(main, raised, code, said) -> None:
    with pytest.raises(raised):
        run(main, str, int)
    last = lines()[-1]
    assert (last["event"], last["code"], last["said"]) == ("failed", code, said)
    assert stagelog.current is None


def test_a_second_run_follows_the_first_and_is_told_apart() -> None:
    run(trained, str, int)
    with pytest.raises(SystemExit):
        run(refused, str, int)
    assert [line["event"] for line in stagelog.last_run("pretrain@a-0")] == ["started", "failed"]
    assert len(lines()) == 6


def test_the_first_of_several_processes_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    run(trained, str, int)
    assert not Path("work").exists()


def test_a_disk_that_takes_nothing_stops_no_stage() -> None:
    Path("work").write_text("no folder")
    run(trained, str, int)


def test_without_dvc_it_is_named_by_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    assert stagelog.name_of("pretrain", ["a", "0"]) == "pretrain@a-0"
    assert stagelog.name_of("scan", []) == "scan"


def test_a_process_that_has_gone_is_not_at_work() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    run(trained, str, int)
    started = stagelog.last_run("pretrain@a-0")[0]
    assert stagelog.at_work(started) is True
    assert stagelog.at_work({**started, "pid": ended.pid}) is False
    assert stagelog.at_work({**started, "born": started["born"] - 1000}) is False, "another one of that number"
    assert stagelog.at_work({**started, "host": "elsewhere"}) is None


def test_a_log_that_has_grown_large_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stagelog, "LARGEST", 100)
    run(trained, str, int)
    run(trained, str, int)
    assert len(lines()) == 4
