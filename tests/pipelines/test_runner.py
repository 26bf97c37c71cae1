"""Execution of plans through DVC: order, failure, limits, locks, and that nothing outlives a run."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny

from pipelines import locks, machine, processes, runner
from pipelines.plan import Planned, plan
from pipelines.processes import Stop
from pipelines.status import status

STUCK = "mkdir -p encoders; echo started; touch started-$1; sleep 600; echo x > encoders/$1-$2"


def run_all(*targets: str, jobs: int = 2, limit_s: float | None = None) -> dict[str, runner.Result]:
    workspace = runner.Workspace(limit_s=limit_s, on_line=lambda stage, line: None)
    return runner.execute(plan(targets), workspace.run, jobs=jobs, stop=workspace.stop)


def outcomes(results: dict[str, runner.Result]) -> dict[str, str]:
    return {name: result.outcome for name, result in results.items()}


# Order and failure, with stages that are functions


def chain(*edges: tuple[str, tuple[str, ...]]) -> list[Planned]:
    return [Planned(name, after, "stale", ()) for name, after in edges]


DIAMOND = chain(("top", ()), ("side", ()), ("left", ("top",)), ("right", ("top",)), ("end", ("left", "right")))


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_stages_run_after_what_they_need_and_side_by_side_up_to_the_limit(jobs: int) -> None:
    lock, running, most, ended = threading.Lock(), set(), [0], []

    def run(stage: Planned) -> runner.Result:
        with lock:
            assert set(stage.after) <= set(ended)
            running.add(stage.name)
            most[0] = max(most[0], len(running))
        time.sleep(0.1)
        with lock:
            running.discard(stage.name)
            ended.append(stage.name)
        return runner.Result(stage.name, "ran")

    results = runner.execute(DIAMOND, run, jobs=jobs, stop=lambda: None)
    assert outcomes(results) == dict.fromkeys(("top", "side", "left", "right", "end"), "ran")
    assert min(jobs, 2) <= most[0] <= jobs
    assert ended[0] == "top" or jobs > 1, "the longest chain goes first"


def test_a_failure_takes_what_depends_on_it_and_nothing_else() -> None:
    def run(stage: Planned) -> runner.Result:
        return runner.Result(stage.name, "failed" if stage.name == "left" else "ran", "no disk")

    results = runner.execute(DIAMOND, run, jobs=1, stop=lambda: None)
    assert outcomes(results) == {"top": "ran", "left": "failed", "right": "ran", "side": "ran", "end": "not run"}
    assert results["end"].message == "needs left"
    said = runner.summary(list(results.values()))
    assert "3 ran, 1 failed, 1 not run" in said
    assert "left: failed: no disk" in said


def test_what_interrupts_a_run_stops_its_stages() -> None:
    stop = Stop()

    def run(stage: Planned) -> runner.Result:
        with stop.reaches(released.set):
            assert released.wait(10)
        return runner.Result(stage.name, "stopped")

    def interrupt(result: runner.Result) -> None:
        raise KeyboardInterrupt

    released = threading.Event()
    fresh = Planned("fresh", (), "fresh", ())
    quick = {"fresh": runner.Result("fresh", "cached")}
    with pytest.raises(KeyboardInterrupt):
        runner.execute(
            [*DIAMOND, fresh],
            lambda stage: quick.get(stage.name) or run(stage),
            jobs=2,
            stop=stop,
            on_result=interrupt,
        )
    assert released.is_set()


# Commands


def test_a_failing_stage_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "mkdir -p encoders; echo working; echo 'no space left' >&2; [ $1 = b ] && echo x > encoders/b-0"
    monkeypatch.chdir(tiny.make(tmp_path / "project", script))
    results = run_all()
    assert outcomes(results) == {"prepare": "ran", "pretrain@a-0": "failed", "pretrain@b-0": "ran", "report": "not run"}
    message = results["pretrain@a-0"].message
    assert "working\n    no space left" in message
    assert "work/logs/pretrain@a-0.log" in message
    assert "no space left" in Path("work/logs/pretrain@a-0.log").read_text()


def test_a_stage_past_its_limit_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.make(tmp_path / "project", STUCK))
    run_all("prepare")
    results = run_all("pretrain@a-0", limit_s=2)
    assert results["pretrain@a-0"].outcome == "failed"
    assert "took longer than 2 s" in results["pretrain@a-0"].message
    (one,) = status().of("failed")
    assert one.why.startswith("took longer than 2 s")
    assert tiny.processes_in(tmp_path) == []


def test_what_has_left_its_session_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    code = "import subprocess as s; s.Popen(['sleep', '600'], start_new_session=True); print('done')"
    ended = processes.run([sys.executable, "-c", code], tmp_path / "log", Stop())
    assert (ended.code, ended.why, ended.tail) == (0, "", ("done",))
    assert tiny.processes_in(tmp_path) == []
    assert time.monotonic() - start < processes.GRACE_S + 60


def test_what_ignores_an_interrupt_is_killed(tmp_path: Path) -> None:
    stop = Stop()
    threading.Timer(0.5, stop).start()
    ended = processes.run(["sh", "-c", "trap '' INT TERM; while :; do sleep 1; done"], tmp_path / "log", stop)
    assert (ended.code, ended.why) == (128 + signal.SIGKILL, "stopped")


def test_output_is_read_whatever_it_holds(tmp_path: Path) -> None:
    lines: list[str] = []
    command = ["sh", "-c", r"printf 'a\rb\n\377\n'; seq 30; exit 7"]
    ended = processes.run(command, tmp_path / "log", Stop(), on_line=lines.append)
    assert lines[:3] == ["a", "b", "�"]
    assert ended.code == 7
    assert ended.tail == tuple(map(str, range(11, 31)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_leaves_no_process_and_can_be_run_again(tmp_path: Path, number: signal.Signals) -> None:
    folder = tiny.make(tmp_path / "project", STUCK)
    process = tiny.start("runner", folder, "--jobs", "2")
    assert tiny.wait_until(lambda: (folder / "started-a").exists() and (folder / "started-b").exists())
    assert len(tiny.processes_in(folder)) > 4
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert tiny.wait_until(lambda: tiny.processes_in(folder) == []), tiny.processes_in(folder)
    if number != signal.SIGKILL:
        assert "stopped; what was finished is kept" in said
        return
    (folder / "pretrain.sh").write_text(tiny.PRETRAIN)
    again = tiny.start("runner", folder)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "3 ran, 1 cached" in said


# Stages that run every time


def test_what_a_look_finds_is_acted_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.make(tmp_path / "project")
    (folder / "raw").mkdir()
    (folder / "dvc.yaml").write_text(tiny.LOOKING.replace("head -c 1 source.txt", "cat list"))
    monkeypatch.chdir(folder)
    checks: list[bool] = []
    plans: list[list[str]] = []
    monkeypatch.setattr(runner, "check_params", lambda: checks.append(True))

    def run() -> dict[str, str]:
        workspace = runner.Workspace(on_line=lambda stage, line: None)
        told: list[runner.Result] = []
        results = runner.bring_up_to_date(
            ["pretrain@a-0"],
            workspace.run,
            jobs=2,
            stop=workspace.stop,
            on_plan=lambda stages: plans.append([stage.name for stage in stages]),
            on_result=told.append,
        )
        assert told == list(results.values()), "each result is told once"
        return outcomes(results)

    assert run() == {"look": "ran", "prepare": "ran", "pretrain@a-0": "ran"}
    before = [Path(file).stat().st_mtime_ns for file in ("dvc.lock", "list")]
    plans.clear()
    assert run() == {"look": "cached", "prepare": "cached", "pretrain@a-0": "cached"}
    assert [Path(file).stat().st_mtime_ns for file in ("dvc.lock", "list")] == before, "a look that finds nothing"
    assert (len(checks), len(plans)) == (1, 1), "a look alone needs no check of all settings, and no second plan"
    assert Path("looked").read_text() == "x\n" * 2
    (folder / "raw" / "new").touch()
    assert run() == {"look": "ran", "prepare": "ran", "pretrain@a-0": "ran"}
    assert len(checks) == 2
    assert run() == {"look": "cached", "prepare": "cached", "pretrain@a-0": "cached"}
    (folder / "raw" / "new").unlink()
    (folder / "raw").rmdir()
    assert run() == {"look": "failed", "prepare": "not run", "pretrain@a-0": "not run"}
    assert "raw" in Path("work/logs/look.log").read_text()


# What is shown


CHATTY = """
mkdir -p encoders
for step in $(seq 500); do echo "pretrain $1-$2  step $step/500  loss 0.$step"; done
echo 'warning: it has collapsed' >&2
echo fitted; echo verdict
echo x > encoders/$1-$2
"""


def test_a_log_is_short_and_tells_how_far_the_run_is(tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "project", CHATTY)
    process = tiny.start("runner", folder, "--jobs", "1")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    lines = said.splitlines()
    assert len(lines) < 25
    ours = [line.partition(" | ")[2] for line in lines if line.startswith("pretrain@a-0")]
    assert ours[0] == "> sh pretrain.sh a 0"
    assert ours[1:-1] == ["warning: it has collapsed", "pretrain a-0  step 500/500  loss 0.500", "fitted", "verdict"]
    assert re.fullmatch(r"ran in [\d.]+ s \[2/4(, about \d+ s left)?\]", ours[-1])
    assert (folder / "work/logs/pretrain@a-0.log").read_text().count("\n") > 500
    assert set(json.loads((folder / "work/durations.json").read_text())) == {
        "prepare",
        "pretrain@a-0",
        "pretrain@b-0",
        "report",
    }
    (folder / "pretrain.sh").write_text(CHATTY.replace("fitted", "finished"))
    again = tiny.start("runner", folder, "--jobs", "1", "pretrain@a-0")
    said, _ = again.communicate(timeout=120)
    assert re.search(r"^pretrain@a-0 \| ran in [\d.]+ s \[2/2\]$", said, re.MULTILINE)
    assert "\x1b" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_the_terminal_in_order(tmp_path: Path, number: signal.Signals) -> None:
    folder = tiny.make(tmp_path / "project", STUCK)
    process, shown = tiny.start_on_terminal("runner", folder, "--jobs", "2")
    line = "stage 3 of 4 · pretrain@a-0, pretrain@b-0 · 0:"
    assert tiny.wait_until((folder / "started-a").exists), shown()
    assert tiny.wait_until(lambda: tiny.screen(shown())[-1].startswith(line)), shown()
    process.send_signal(number)
    assert process.wait(20) == 130
    told = "stopped; what was finished is kept, and the next run goes on from there"
    assert tiny.wait_until(lambda: tiny.screen(shown())[-2:] == [told, ""]), shown()
    assert not [line for line in tiny.screen(shown()) if line.startswith("stage ")]
    assert "\x1b[?" not in shown()
    assert "ERROR" not in shown(), "being stopped is no fault of the stage"


def test_a_failed_run_leaves_the_terminal_in_order(tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "project", "echo 'no space left' >&2; sleep 2; exit 1")
    process, shown = tiny.start_on_terminal("runner", folder, "--jobs", "2")
    assert process.wait(60) == 1
    assert tiny.wait_until(lambda: "4 stages: 1 ran, 2 failed, 1 not run" in shown())
    lines = tiny.screen(shown())
    assert not [line for line in lines if line.startswith("stage ")]
    assert [line for line in lines if re.fullmatch(r"pretrain@a-0 \| failed in [\d.]+ s \[[234]/4\]", line)]
    assert lines[-1] == ""
    assert "stage 3 of 4" in shown()


# Locks


def test_two_runs_in_one_folder_are_one_too_many(tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "project")
    with locks.one_run(folder):
        with pytest.raises(locks.Busy, match="another run is at work"), locks.one_run(folder):
            pass
        second = tiny.start("runner", folder)
        said, _ = second.communicate(timeout=120)
        assert second.returncode == 1
        assert "another run is at work in this folder (process" in said
    with locks.one_run(folder):
        pass


@pytest.mark.parametrize(
    ("params", "gpus", "expected"),
    [
        ("compute: {device: cpu, threads: 1}", "0,1,2", (8, [])),
        ("compute: {device: cpu, threads: 3}", "", (2, [])),
        ("compute: {device: cpu, threads: 0}", "", (1, [])),
        ("compute: {device: auto, threads: 1}", "0,1,2", (3, ["0", "1", "2"])),
        ("run: {launch: torchrun --nproc-per-node 2 -m}", "0,1", (1, ["0", "1"])),
    ],
)
def test_how_many_stages_side_by_side(
    params: str, gpus: str, expected: tuple[int, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    Path("params.yaml").write_text(params)
    assert machine.shares() == expected
    assert machine.shares(jobs=5) == (5, expected[1])


def test_a_run_of_some_stages_does_not_print_the_leaderboard_of_an_earlier_one(tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "project")
    page = folder / "artifacts/report/index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    for targets, told in ((["pretrain"], False), (["report"], True), ([], True)):
        said, _ = tiny.start("runner", folder, *targets).communicate(timeout=120)
        assert ("report: artifacts/report/index.html" in said) == told, said
