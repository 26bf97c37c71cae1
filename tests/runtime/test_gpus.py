"""A GPU for each stage: by a lock that holds whoever starts the stage, and that nothing has to release."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sslflow import gpus
from tests import tiny

TAKE = """
import os, sys, time
from sslflow import gpus
names = gpus.take(sys.argv[1], sys.argv[2], lambda what: print("waits for", what, flush=True))
print("has", *names, "sees", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(600)
"""
STAGE = f"mkdir -p encoders; exec {sys.executable} ../take.py auto pretrain@$1-$2"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two GPUs, as far as a stage can see."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    (tmp_path / "take.py").write_text(TAKE)
    return tmp_path


@contextmanager
def stage(device: str, name: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, device, name],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.usefixtures("machine")
def test_a_gpu_has_one_stage_and_is_free_as_soon_as_that_is_killed() -> None:
    with stage("auto", "a") as first, stage("cuda", "b") as second:
        assert {line(first), line(second)} == {"has 0 sees 0", "has 1 sees 1"}
        held = {name: gpus.holder(name)["stage"] for name in "01"}
        assert set(held.values()) == {"a", "b"}
        with stage("auto", "c") as third:
            said = line(third)
            assert said.startswith("waits for a free GPU; 2 here, taken by ")
            assert f"a (process {first.pid}" in said
            first.send_signal(signal.SIGKILL)
            first.wait()
            free = next(name for name, who in held.items() if who == "a")
            assert line(third) == f"has {free} sees {free}"
    assert gpus.holder("0") == gpus.holder("1") == {}


@pytest.mark.usefixtures("machine")
def test_a_gpu_that_is_named_is_waited_for_though_another_is_free() -> None:
    with stage("cuda:1", "a") as first:
        assert line(first) == "has 1 sees 0,1", "numbers mean what they meant"
        with stage("cuda:1", "b") as second, stage("auto", "c") as third:
            assert line(second).startswith("waits for a free GPU; 1 here")
            assert line(third) == "has 0 sees 0"


@pytest.mark.usefixtures("machine")
def test_what_computes_on_processors_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus.take("cpu", "a", print) == []
    monkeypatch.setenv(gpus.VISIBLE, "")
    assert gpus.take("auto", "a", print) == []


@pytest.mark.usefixtures("machine")
def test_several_processes_of_one_job_wait_for_its_first() -> None:
    several = {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}
    with stage("cuda:1", "other") as other:
        assert line(other) == "has 1 sees 0,1"
        with (
            stage("auto", "job", LOCAL_RANK="1", **several) as last,
            stage("auto", "job", LOCAL_RANK="0", **several) as one,
        ):
            assert line(one).startswith("waits for a free GPU; 1 here, taken by other")
            other.kill()
            assert line(one) == "has 0 1 sees 0,1"
            assert line(last) == "has 0 1 sees 0,1"


@pytest.mark.usefixtures("machine")
def test_numbers_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [gpus.Gpu("GPU-aa11", "one", 8), gpus.Gpu("GPU-bb22", "two", 8)]
    monkeypatch.setattr(gpus, "all_of_them", lambda: found)
    monkeypatch.setenv(gpus.VISIBLE, "1, GPU-aa, 7")
    assert gpus.visible() == ["GPU-bb22", "GPU-aa11", "7"]
    monkeypatch.delenv(gpus.VISIBLE)
    assert gpus.visible() == ["GPU-aa11", "GPU-bb22"]


def test_it_holds_under_plain_dvc_in_two_folders(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0")
    folders = [tiny.make(machine / name, STAGE) for name in ("one", "two")]
    dvc = [sys.executable, "-m", "dvc", "repro", "pretrain@a-0"]
    runs = [
        subprocess.Popen(dvc, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        for folder in folders
    ]
    try:
        assert tiny.wait_until(lambda: bool(gpus.holder("0")))
        first = gpus.holder("0")
        assert tiny.wait_until(
            lambda: all(any("take.py" in line for line in tiny.processes_in(one)) for one in folders)
        )
        os.kill(first["pid"], signal.SIGKILL)
        assert tiny.wait_until(lambda: gpus.holder("0").get("folder") not in (None, first["folder"]))
        assert {Path(first["folder"]), Path(gpus.holder("0")["folder"])} == set(folders)
    finally:
        for run in runs:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()


COMPUTES = """
import os, sys
from sslflow import gpus
from sslflow.runtime.device import compute
from sslflow.stages.entry import run

def main() -> None:
    compute(device=device)
    print(device, os.environ["CUDA_VISIBLE_DEVICES"], gpus.holder("0").get("stage"), flush=True)

device = "auto"
main()
device = "cpu"
run(main)
device = "auto"
run(main)
"""


def test_a_stage_that_computes_takes_one_and_a_command_none(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "probe@simclr-0")
    done = subprocess.run([sys.executable, "-c", COMPUTES], cwd=machine, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["auto 0,1 None", "cpu 0,1 None", "auto 0 probe@simclr-0"]
    log = (machine / "work/logs/probe@simclr-0.jsonl").read_text()
    assert log.count('"event": "took"') == 1
    assert '"gpus": ["0"]' in log
