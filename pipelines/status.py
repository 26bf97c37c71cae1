"""What runs at this moment, where and how far, what waits, and what has failed: read from what DVC and the stages write
down, whoever started them. Takes no lock."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from pipelines import locks, machine
from pipelines.at_work import at_work
from pipelines.plan import Planned, plan
from pipelines.progress import Times, expected, time_left
from pipelines.runner import DURATIONS
from sslflow import gpus, stagelog
from sslflow.reporting.leaderboard import duration
from sslflow.stagelog import LOGS

State = Literal["running", "failed", "stopped", "lost", "waiting", "may run", "up to date"]
HEADS: Mapping[State, str] = {"lost": "ended without a word", "waiting": "waiting", "may run": "may run"}
MEASURED_S = 0.3
"""For which what a process uses of the machine is watched."""
HEARD_S = 600
"""Seconds after which a stage on another machine that says nothing is taken for lost."""
STOPPED = 130


@dataclass
class Stage:
    """A stage at one moment; what isn't known is None or empty."""

    name: str
    state: State
    why: str = ""
    """What it waits for, or how it ended."""
    host: str = ""
    pid: int | None = None
    gpus: Sequence[str] = ()
    seconds: float | None = None
    """Since it began, or since it ended."""
    left_s: float | None = None
    done: int | None = None
    of: int | None = None
    unit: str = ""
    per_second: float | None = None
    said: str = ""
    cpu: float | None = None
    """Cores that it keeps busy."""
    memory: int | None = None
    gpu: float | None = None
    gpu_memory: int | None = None
    log: str = ""


@dataclass
class Status:
    """The whole pipeline at one moment."""

    folder: str
    moment: str
    run: dict[str, Any] | None
    """The process that holds the folder, and its command; None where none does, or DVC alone is at work."""
    left_s: float | None
    stages: list[Stage]

    def of(self, *states: State) -> list[Stage]:
        """Stages in one of the states."""
        return [stage for stage in self.stages if stage.state in states]


def status(targets: Sequence[str] = ()) -> Status:
    """The stages that `targets` need (none: all) of the project in this folder, as they are now. Raises `ValueError`
    where the pipeline can't be read."""
    planned = plan(targets)
    writing = set(at_work(planned))
    stages = [_stage(one, one.name in writing) for one in planned]
    undone = {stage.name for stage in stages if stage.state != "up to date"}
    for one, stage in zip(planned, stages, strict=True):
        if stage.state in ("waiting", "may run"):
            above = [name for name in one.after if name in undone]
            after = f"after {', '.join(above[:2])}" + (f" and {len(above) - 2} more" if len(above) > 2 else "")
            stage.why = after if above else one.reasons[0] if one.reasons else ""
    _measure([one for one in stages if one.state == "running" and one.pid])
    run = locks.holder()
    return Status(
        str(Path.cwd()),
        datetime.now().astimezone().isoformat(timespec="seconds"),
        {"pid": run, "command": _command(run)} if run else None,
        _left(planned, stages),
        stages,
    )


def _stage(planned: Planned, written: bool) -> Stage:
    lines = stagelog.last_run(planned.name)
    first, last = (lines[0], lines[-1]) if lines else ({}, {})
    there = stagelog.at_work(first) if first.get("event") == "started" and last["event"] not in ENDED else False
    if there is None:  # of another machine, which shares this folder
        there = _ago(last) < HEARD_S
    if there:
        return _running(planned.name, lines)
    if written:
        began = _ago(last) if last.get("event") == "ended" else None
        why = "done; DVC keeps what it has made" if began is not None else "begins"
        return Stage(planned.name, "running", why, seconds=began)
    if planned.state == "fresh" or (planned.only_looks and last.get("event") != "failed"):
        return Stage(planned.name, "up to date")
    if last and last["event"] != "ended":
        return _broken(planned.name, lines)
    return Stage(planned.name, "waiting" if planned.state == "stale" else "may run")


ENDED = ("ended", "failed")


def _running(name: str, lines: list[dict[str, Any]]) -> Stage:
    first, last = lines[0], lines[-1]
    found = Stage(name, "running", host=first.get("host", ""), pid=first.get("pid"), seconds=_ago(first))
    found.gpus = next((line["gpus"] for line in reversed(lines) if line["event"] == "took"), ())
    if last["event"] == "waiting":
        found.why = f"waits for {last.get('what')}"
    if far := next((line for line in reversed(lines) if line["event"] == "progress"), None):
        found.done, found.of, found.unit = far["done"], far["of"], far["unit"]
        found.per_second, found.said = far["per_second"], far.get("said", "")
        found.left_s = max(0.0, far["left_s"] - _ago(far))
    return found


def _broken(name: str, lines: list[dict[str, Any]]) -> Stage:
    last = lines[-1]
    found = Stage(name, "failed", seconds=_ago(last))
    if last["event"] == "failed":
        stopped = last.get("code") == STOPPED or str(last.get("said")).splitlines()[:1] == ["stopped"]
        found.state = "stopped" if stopped else "failed"
        found.why = "; ".join(line.strip() for line in str(_says_most(lines)).splitlines() if line.strip())
    else:
        found.state, found.why = "lost", "its process was killed, or the machine went down"
    if far := next((line for line in reversed(lines) if line["event"] == "progress"), None):
        found.done, found.of, found.unit = far["done"], far["of"], far["unit"]
    file = LOGS / f"{name}.log"
    found.log = str(file if file.exists() else file.with_suffix(".jsonl"))
    return found


def _says_most(lines: list[dict[str, Any]]) -> str:
    """What the stage itself said, if it could, else what its runner did."""
    own = [line for line in lines if line["event"] == "failed" and "by" not in line]
    return (own or lines)[-1].get("said", "")


def _ago(line: Mapping[str, Any]) -> float:
    return max(0.0, time.time() - datetime.fromisoformat(line["time"]).timestamp())


def _measure(stages: Sequence[Stage]) -> None:
    """Watch what those that are on this machine use of it."""
    here = [(one, psutil.Process(one.pid)) for one in stages if one.host == socket.gethostname()]
    before = [stagelog.used(process) for _, process in here]
    time.sleep(MEASURED_S if here else 0)
    for (one, process), earlier in zip(here, before, strict=True):
        one.cpu = round(max(0.0, stagelog.used(process) - earlier) / MEASURED_S, 2)
        one.memory = stagelog.memory(process)
        use = gpus.use(one.gpus[0]) if one.gpus else {}
        one.gpu, taken = use.get("gpu"), use.get("gpu_memory")
        one.gpu_memory = None if taken is None else int(taken)


def _left(planned: Sequence[Planned], stages: Sequence[Stage]) -> float | None:
    running = {one.name: one.seconds or 0.0 for one in stages if one.state == "running"}
    done = {one.name for one in stages if one.state == "up to date"}
    took = expected([one.name for one in planned], {}, Times(DURATIONS).last)
    took |= {one.name: (one.seconds or 0.0) + one.left_s for one in stages if one.left_s is not None}
    jobs, _ = machine.shares()
    return time_left(planned, done, running, took, max(jobs, len(running), 1))


def _command(pid: int) -> str:
    """What a process was called with, less the Python that runs it."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return ""
    if len(words) > 1 and Path(words[0]).name.startswith("python"):
        words = words[2:] if words[1] == "-m" else [Path(words[1]).name, *words[2:]]
    return " ".join(words)


# For people


def text(found: Status) -> Iterator[str]:
    """The lines that tell of it."""
    running = found.of("running")
    left = f"; about {duration(found.left_s)} left" if found.left_s else ""
    if found.run:
        yield f"{found.run['command'] or 'a run'} (process {found.run['pid']}) is at work in {found.folder}{left}"
    elif running:
        yield f"at work in {found.folder}, not by the runner{left}"
    else:
        yield f"nothing runs in {found.folder}"
    width = max((len(one.name) for one in found.stages if one.state != "up to date"), default=0)
    for state in ("running", "failed", "lost", "stopped", "waiting", "may run"):
        for number, one in enumerate(found.of(state)):
            if not number:
                yield f"{HEADS.get(state, state)}:"
            yield f"  {one.name:<{width}}  {'  '.join(filter(None, _words(one)))}".rstrip()
            if one.said:
                yield f"  {'':<{width}}  {one.said}"
            if one.log:
                yield f"  {'':<{width}}  its log: {one.log}"
    states = ("up to date", "running", "failed", "lost", "stopped", "waiting", "may run")
    counts = [f"{len(ours)} {state}" for state in states if (ours := found.of(state)) or state == "up to date"]
    yield f"{len(found.stages)} stages: {', '.join(counts)}"


def _words(one: Stage) -> Iterator[str]:
    if one.done is not None and one.of:
        yield f"{one.unit} {one.done} of {one.of} ({100 * one.done / one.of:.0f} %)"
    if one.state == "running":
        yield f"{one.per_second:.3g} {one.unit}/s" if one.per_second else ""
        yield f"about {duration(one.left_s)} left" if one.left_s else ""
        yield f"for {duration(one.seconds)}" if one.seconds is not None and not one.left_s else ""
    elif one.seconds is not None:
        yield f"{duration(one.seconds)} ago" + (f": {one.why}" if one.why not in ("", "stopped") else "")
    if one.state not in ("failed", "lost", "stopped"):
        yield one.why
    yield ", ".join(filter(None, _where(one)))


def _where(one: Stage) -> Iterator[str]:
    if one.pid:
        yield f"process {one.pid}" + ("" if one.host == socket.gethostname() else f" on {one.host}")
    if one.cpu is not None:
        yield f"{one.cpu:.1f} cores"
    if one.memory is not None:
        yield f"{one.memory / 1e9:.1f} GB"
    for name in one.gpus:
        busy = f" {100 * one.gpu:.0f} % busy" if one.gpu is not None and name == one.gpus[0] else ""
        yield f"GPU {name}{busy}"


def as_json(found: Status) -> Iterator[str]:
    """The same for programs; what isn't known is left out of a stage."""
    stages = [{name: value for name, value in asdict(one).items() if value or value == 0} for one in found.stages]
    yield json.dumps({**asdict(found), "stages": stages}, indent=2, ensure_ascii=False)
