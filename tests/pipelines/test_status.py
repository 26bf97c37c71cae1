"""What runs, how far it is, what waits and what has failed, whoever started it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines import locks
from pipelines.status import Status, as_json, status, text
from tests import tiny

TRAINING = """
import sys, time
from sslflow.progress import Progress
from sslflow.stages.entry import run

def main(method: str, seed: int) -> None:
    progress = Progress("pretrain", 100, "step")
    time.sleep(0.2)
    progress.say(25, "loss 1.93")
    time.sleep(600)

run(main, str, int)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny.make(tmp_path / "project"))
    return tmp_path / "project"


def write(folder: Path, stage: str, *lines: dict[str, Any], ago: float = 30) -> None:
    file = folder / f"work/logs/{stage}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    when = (datetime.now().astimezone() - timedelta(seconds=ago)).isoformat()
    file.write_text("".join(json.dumps({"time": when, "stage": stage, **line}) + "\n" for line in lines))


def started(pid: int = os.getpid(), host: str = socket.gethostname()) -> dict[str, Any]:
    return {"event": "started", "host": host, "pid": pid, "born": psutil.Process().create_time()}


FAR = {"event": "progress", "done": 25, "of": 100, "unit": "step", "per_second": 2.5, "left_s": 60.0, "said": "loss 2"}


def states(found: Status) -> dict[str, str]:
    return {stage.name: stage.state for stage in found.stages}


def test_before_anything_has_run(folder: Path) -> None:
    found = status()
    assert set(states(found).values()) == {"waiting"}
    said = list(text(found))
    assert said[0] == f"nothing runs in {folder}"
    assert said[2:4] == ["  prepare       never ran", "  pretrain@a-0  after prepare"]
    assert said[-1] == "4 stages: 0 up to date, 4 waiting"


def test_where_and_how_far_a_stage_is(folder: Path) -> None:
    write(folder, "pretrain@a-0", started(), {"event": "took", "gpus": ["GPU-1"]}, FAR)
    with locks.one_run(folder):
        found = status()
    (one,) = found.of("running")
    assert (one.pid, one.done, one.of, one.gpus) == (os.getpid(), 25, 100, ["GPU-1"])
    assert one.left_s == pytest.approx(30, abs=5), "the line is half a minute old"
    assert one.memory
    assert one.memory > 10e6
    said = list(text(found))
    assert f"(process {os.getpid()}) is at work in {folder}" in said[0]
    assert "step 25 of 100 (25 %)  2.5 step/s  about 30 s left" in said[2]
    assert "GPU GPU-1" in said[2]
    assert said[3].strip() == "loss 2"
    told = json.loads("".join(as_json(found)))
    assert told["run"]["pid"] == os.getpid()
    assert next(stage for stage in told["stages"] if stage["name"] == "pretrain@a-0")["per_second"] == 2.5


def test_a_stage_that_waits_for_a_gpu_says_so(folder: Path) -> None:
    write(folder, "pretrain@a-0", started(), {"event": "waiting", "what": "a free GPU; 1 here"})
    assert "waits for a free GPU; 1 here" in "\n".join(text(status()))


def test_a_stage_on_another_machine(folder: Path) -> None:
    write(folder, "pretrain@a-0", started(7, "agent-2"), FAR, ago=30)
    assert "process 7 on agent-2" in "\n".join(text(status()))
    write(folder, "pretrain@a-0", started(7, "agent-2"), FAR, ago=3600)
    assert states(status())["pretrain@a-0"] == "lost"


def test_how_stages_have_ended(folder: Path) -> None:
    write(folder, "pretrain@a-0", started(), {"event": "failed", "code": 1, "said": "too little memory"})
    write(folder, "pretrain@b-0", started(), {"event": "failed", "code": 130, "said": "stopped"})
    (folder / "work/logs/pretrain@a-0.log").write_text("too little memory")
    found = status()
    assert states(found) == {
        "prepare": "waiting",
        "pretrain@a-0": "failed",
        "pretrain@b-0": "stopped",
        "report": "waiting",
    }
    said = "\n".join(text(found))
    assert "30 s ago: too little memory\n                its log: work/logs/pretrain@a-0.log" in said
    assert "its log: work/logs/pretrain@b-0.jsonl" in said, "plain `dvc repro` leaves no other"


def test_under_plain_dvc_while_it_runs_and_after_a_kill(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    (folder / "pretrain.py").write_text(TRAINING)
    (folder / "pretrain.sh").write_text(f"{sys.executable} pretrain.py $1 $2")
    dvc = [sys.executable, "-m", "dvc", "repro", "pretrain@a-0"]
    run = subprocess.Popen(dvc, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        log = folder / "work/logs/pretrain@a-0.jsonl"
        assert tiny.wait_until(lambda: log.exists() and "progress" in log.read_text())
        found = status()
        (one,) = found.of("running")
        assert (one.name, one.done, one.said) == ("pretrain@a-0", 25, "loss 1.93")
        assert next(text(found)).startswith(f"at work in {folder}, not by the runner")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    time.sleep(0.1)
    found = status()
    assert states(found)["pretrain@a-0"] == "lost"
    assert "ended without a word:" in list(text(found))
    assert found.of("running") == []


def test_a_stage_that_only_looks_waits_for_nothing(folder: Path) -> None:
    (folder / "raw").mkdir()
    (folder / "dvc.yaml").write_text(tiny.LOOKING)
    subprocess.run([sys.executable, "-m", "dvc", "repro", "look"], cwd=folder, check=True, capture_output=True)
    assert states(status(["look"])) == {"look": "up to date"}
