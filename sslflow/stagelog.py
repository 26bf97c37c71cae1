"""What a stage tells programs of itself: lines of JSON in `work/logs/<stage>.jsonl`, one for its start, some while it
is at work, one for its end. docs/operate.md says what they hold."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from sslflow import gpus, paths

LOGS = paths.WORK / "logs"
EVERY_S = 10.0
"""Seconds from one line on progress to the next, but for the first and the last."""
LARGEST = 16 * 2**20
"""Bytes above which a log begins anew: lines of several runs follow each other in one file."""
TAIL = 64 * 2**10
"""Bytes of a log's end that are read to tell how far a stage is."""


class StageLog:
    """The log of the stage that this process is. Of several processes that `torchrun` starts the first one writes."""

    def __init__(self, stage: str) -> None:
        self.stage, self.file = stage, LOGS / f"{stage}.jsonl"
        self._silent = int(os.environ.get("RANK", "0")) > 0
        self.gpu = ""
        """UUID of the GPU that it has taken, where that is known."""
        self._process = psutil.Process()
        self._began = self._last = time.monotonic()
        self._used = self._first = used(self._process)
        self._said = 0.0
        with contextlib.suppress(OSError):
            if not self._silent and self.file.stat().st_size > LARGEST:
                self.file.unlink()

    def started(self) -> None:
        """The stage begins."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        who = {"host": socket.gethostname(), "pid": os.getpid(), "born": round(self._process.create_time(), 2)}
        self.write("started", **who, cores=cores, processes=int(os.environ.get("WORLD_SIZE", "1")))

    def progress(self, done: int, total: int, unit: str, per_second: float, left_s: float, said: str = "") -> None:
        """It is so far, at this speed, and needs about so many seconds more; `said` is what a person is told."""
        if self._silent or (done < total and self._said and time.monotonic() - self._said < EVERY_S):
            return
        self._said = time.monotonic()
        far = {"done": done, "of": total, "unit": unit, "per_second": _short(per_second), "left_s": _short(left_s)}
        self.write("progress", **far, **self._taken(), **({"said": said} if said else {}))

    def waits(self, what: str) -> None:
        """It can't go on before it has what it waits for."""
        print(f"{self.stage}  waits for {what}", flush=True)
        self.write("waiting", what=what)

    def takes(self, found: Sequence[str]) -> None:
        """It has these GPUs; none: it computes on processors."""
        if found:
            self.gpu = found[min(int(os.environ.get("LOCAL_RANK", "0")), len(found) - 1)]
            self.write("took", gpus=list(found))

    def ended(self, code: int, said: str = "") -> None:
        """The stage ends, with this exit code; `said` is what it told the user where that isn't 0."""
        wall = max(time.monotonic() - self._began, 1e-9)
        work = max(0.0, used(self._process) - self._first)
        facts = {"code": code, "seconds": _short(wall), "cpu": _short(work / wall), "memory": memory(self._process)}
        self.write("failed" if code else "ended", **facts, **({"said": said[:2000]} if said else {}))

    def write(self, event: str, **facts: Any) -> None:
        """A line for anything else. That a disk is full is for the stage itself to find."""
        if not self._silent:
            _append(self.file, event, self.stage, facts)

    def _taken(self) -> dict[str, Any]:
        """Cores in use since the line before, memory now, and what the GPU is doing."""
        now, work = time.monotonic(), used(self._process)
        share = max(0.0, work - self._used) / max(now - self._last, 1e-9)
        self._last, self._used = now, work
        found = {"cpu": _short(share), "memory": memory(self._process)}
        return {**found, **gpus.use(self.gpu)} if self.gpu else found


current: StageLog | None = None
"""The log of this process, where it is a stage."""


@contextlib.contextmanager
def stage(name: str) -> Iterator[StageLog]:
    """Within it, this process is that stage."""
    global current
    current = StageLog(name)
    current.started()
    try:
        yield current
    finally:
        current = None


def name_of(script: str, words: Sequence[str]) -> str:
    """Name of the stage that a script is with its words: what DVC calls it, where DVC has started it."""
    return os.environ.get("DVC_STAGE") or "@".join(filter(None, [script, "-".join(words)]))


def ended_by(stage: str, code: int, why: str, tail: Sequence[str]) -> None:
    """What has run a stage adds how it ended, which the stage itself can't say where it was killed or never began:
    `why` it was ended from outside, and its last lines."""
    said = [why or f"exit code {code}", *tail[-3:]]
    _append(LOGS / f"{stage}.jsonl", "failed", stage, {"code": code, "by": "runner", "said": "\n".join(said)[:2000]})


def last_run(stage: str) -> list[dict[str, Any]]:
    """The lines of a stage's log from its last start on, the newest last; none where there is no log."""
    lines: list[dict[str, Any]] = []
    for line in _tail(LOGS / f"{stage}.jsonl"):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and isinstance(found.get("event"), str):
                lines = [found] if found["event"] == "started" else [*lines, found]
    return lines


def at_work(started: dict[str, Any]) -> bool | None:
    """Whether the process that wrote a line on its start is still there; None where it was on another machine."""
    if started.get("host") != socket.gethostname():
        return None
    try:
        process = psutil.Process(int(started["pid"]))
        # A number is given out again: to the same process only where it is as old.
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started["born"]) < 2
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _append(file: Path, event: str, stage: str, facts: dict[str, Any]) -> None:
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"time": now, "event": event, "stage": stage, **facts}, ensure_ascii=False) + "\n")


def _tail(file: Path) -> list[str]:
    with contextlib.suppress(OSError), file.open("rb") as handle:
        start = max(0, handle.seek(0, os.SEEK_END) - TAIL)
        handle.seek(start)
        lines = handle.read().decode("utf-8", errors="replace").splitlines()
        return lines[1:] if start else lines
    return []


def _family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


def used(process: psutil.Process) -> float:
    """Processor seconds of a process and of all that it has started."""
    seconds = 0.0
    for one in _family(process):
        with contextlib.suppress(psutil.Error):
            seconds += sum(one.cpu_times()[:4])  # its own and those of its children that have ended
    return seconds


def memory(process: psutil.Process) -> int:
    """Bytes of a process and of all that it has started."""
    found = 0
    for one in _family(process):
        with contextlib.suppress(psutil.Error):
            found += one.memory_info().rss
    return found


def _short(value: float) -> float:
    return float(f"{value:.4g}")
