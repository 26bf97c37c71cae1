"""What a run shows of itself: how many stages are done, what is running, how long it may take, and a line now and then
of what the stages say. Their whole output is in `work/logs`."""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Self, TextIO

from pipelines.plan import Planned, group, heights
from sslflow.runtime.files import read_json, write_json

EVERY_S = 10.0
REFRESH_S = 1.0
KEPT = 20
LONGEST_S = 1e9
"""What the file says of longer times, or of negative ones, is not believed."""
ERASE = "\r\x1b[2K"
TELLING = re.compile(r"(?i:error|warning|exception)(:|$)|\b(ERROR|WARNING|CRITICAL|FATAL)\b|^Traceback ")
NUMBER = re.compile(r"\d[\w.+-]*")

# Processor seconds of one stage on the shipped images with the shipped settings. Only for those of which this folder
# knows no time, and only as shares: what the others took here gives the unit.
WEIGHTS = {
    "scan": 2,
    "prepare": 10,
    "audit": 30,
    "domains": 10,
    "clips": 60,
    "preview": 8,
    "pretrain": 70,
    "inspect": 6,
    "extract": 8,
    "pseudolabel": 8,
    "audit_clusters": 13,
    "probe": 12,
    "probe_control": 30,
    "finetune": 14,
    "finetune_control": 14,
    "segment": 120,
    "segment_control": 120,
    "match": 30,
    "match_control": 20,
    "language": 60,
    "language_control": 20,
    "detect": 180,
    "detect_control": 180,
    "segment_volumes": 120,
    "segment_volumes_control": 90,
    "depth": 120,
    "depth_control": 90,
    "adapt": 12,
    "score": 4,
    "pretrain_clips": 90,
    "inspect_clips": 6,
    "examine": 15,
    "report": 25,
}
MEASURED = 0.1
"""Share of a run, by weight, whose times must be known before weights stand for the rest."""


class Times:
    """Seconds that stages took: in this run, and when they last ran, which a file keeps."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.last = _read(file)
        self.now: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Remember a stage that ran to its end."""
        self.now[stage] = round(seconds, 1)
        with contextlib.suppress(OSError):  # a full disk is for the stages to report
            write_json(self.file, {**self.last, **self.now})


def _read(file: Path) -> dict[str, float]:
    with contextlib.suppress(OSError, ValueError):
        found = read_json(file)
        return {
            stage: took for stage, took in found.items() if isinstance(took, (int, float)) and 0 <= took < LONGEST_S
        }
    return {}


def expected(names: Collection[str], now: Mapping[str, float], last: Mapping[str, float]) -> dict[str, float]:
    """Seconds that each stage may take, those left out of which nothing is known.

    What it took `last`, times how much longer its group takes `now`; else the mean of its group; else its weight, in
    units of what is known.
    """
    found = {}
    for name in names:
        same, before = _of_group(name, now), _of_group(name, last)
        again = same.keys() & before.keys()
        if name in last:
            took = sum(before[other] for other in again)
            found[name] = last[name] * (sum(same[other] for other in again) / took if took else 1.0)
        elif same or before:
            found[name] = mean((same or before).values())
    weights = {name: WEIGHTS[group(name)] for name in names if group(name) in WEIGHTS}
    weight = sum(weights.get(name, 0) for name in found)
    if weight and weight >= MEASURED * sum(weights.values()):
        unit = sum(found[name] for name in found if name in weights) / weight
        found |= {name: unit * weights[name] for name in weights if name not in found}
    return found


def _of_group(name: str, seconds: Mapping[str, float]) -> dict[str, float]:
    return {other: took for other, took in seconds.items() if group(other) == group(name)}


def time_left(
    stages: Sequence[Planned],
    done: Collection[str],
    running: Mapping[str, float],
    expected: Mapping[str, float],
    jobs: int,
) -> float | None:
    """Seconds until all stages are done, `jobs` side by side in the order of `runner.execute`; `None`: not known.

    `running` are the seconds since a stage was started. One that takes longer than expected is given as much again as
    it is late.
    """
    height = heights(stages)
    waiting = sorted(
        (stage for stage in stages if stage.name not in {*done, *running} and stage.state != "fresh"),
        key=lambda stage: -height[stage.name],
    )
    if not {*running, *(stage.name for stage in waiting)} <= expected.keys():
        return None
    ends = [(abs(expected[name] - since), name) for name, since in running.items()]
    heapq.heapify(ends)
    missing = {stage.name for stage in waiting} | running.keys()
    now = 0.0
    while ends or waiting:
        for stage in list(waiting):
            if len(ends) < jobs and not missing & set(stage.after):
                waiting.remove(stage)
                heapq.heappush(ends, (now + expected[stage.name], stage.name))
        now, name = heapq.heappop(ends)
        missing.discard(name)
    return now


class Display:
    """The lines of a run and, on a terminal, a line at its bottom, there as long as the `with` block lasts.

    Of what a stage says, a line is shown every ten seconds: the last one. Warnings and errors are all shown, and so is
    what it says at its end. Elsewhere than on a terminal, the line that tells that a stage has ended also tells how far
    the run is. For use from several threads.
    """

    def __init__(
        self, jobs: int, times: Times, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.jobs, self.times, self.stream, self.clock = jobs, times, stream or sys.stdout, clock
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.began = clock()
        self.stages: Sequence[Planned] = ()
        self.done: set[str] = set()
        self.running: dict[str, float] = {}
        self._shown: dict[str, float] = {}
        self._held: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._ticker = threading.Thread(target=self._tick_on, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed.set()
            if self.live:
                self._write(ERASE)
        self._ticker.join()

    def planned(self, stages: Sequence[Planned]) -> None:
        """Take `stages`, fresh ones too, as what the run consists of."""
        with self._lock:
            self.stages = stages
            self._show()

    def started(self, stage: Planned) -> None:
        """Count a stage among the running ones."""
        with self._lock:
            if stage.state != "fresh":
                self.running[stage.name] = self.clock()
            self._show()

    def line(self, stage: str, line: str) -> None:
        """Show a line of a stage, now or later or, where it says more by then, not at all."""
        with self._lock:
            if TELLING.search(line):
                self._show(f"{stage} | {line}")
                return
            held = self._held.setdefault(stage, {})
            shape = NUMBER.sub("#", line)
            held.pop(shape, None)
            held[shape] = line
            if len(held) > KEPT:
                del held[next(iter(held))]
            self._show(*self._due(stage))

    def tick(self) -> None:
        """Show what is due."""
        with self._lock:
            self._show(*(line for stage in self._held for line in self._due(stage)))

    def ended(self, name: str, outcome: str, seconds: float) -> None:
        """Show what a stage said last and, unless it was `cached`, its outcome."""
        with self._lock:
            lines = [f"{name} | {line}" for line in self._held.pop(name, {}).values()]
            self.running.pop(name, None)
            self.done.add(name)
            if outcome == "ran":
                self.times.add(name, seconds)
            if outcome != "cached":
                after = f"{outcome} in {seconds:.1f} s" if seconds else outcome
                far = [f"{len(self.done)}/{len(self.stages)}", *self._left()]
                lines.append(f"{name} | {after} [{', '.join(far)}]")
            self._show(*lines)

    def _due(self, stage: str) -> list[str]:
        """The last of the lines held of a stage, if none was shown for a while; the others are dropped."""
        held, now = self._held[stage], self.clock()
        if not held or now - self._shown.get(stage, -EVERY_S) < EVERY_S:
            return []
        self._shown[stage] = now
        *_, last = held.values()
        held.clear()
        return [f"{stage} | {last}"]

    def _left(self) -> list[str]:
        now = self.clock()
        running = {name: now - since for name, since in self.running.items()}
        names = [stage.name for stage in self.stages]
        seconds = time_left(
            self.stages, self.done, running, expected(names, self.times.now, self.times.last), self.jobs
        )
        return [f"about {approximately(seconds)} left"] if seconds else []

    def _bottom(self, columns: int) -> str:
        """How far the run is, in fewer than `columns` characters: as many names as have room."""
        names = list(self.running)
        number = f"stage {len(self.done) + len(names)} of {len(self.stages)}"
        after = [_clock(self.clock() - self.began), *self._left()]
        for count in range(len(names), -1, -1):
            more = [f"{len(names) - count} more"] if count < len(names) else []
            parts = [number, ", ".join([*names[:count], *more]), *after]
            text = " · ".join(filter(None, parts))
            if len(text) < columns:
                return text
        return text[: columns - 1]

    def _show(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if self.live and not self._closed.is_set():
            bottom = self._bottom(shutil.get_terminal_size().columns) if self.stages else ""
            self._write(f"{ERASE}{text}{bottom}")
        elif text:
            self._write(text)

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def _tick_on(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more; the next line of a stage says so
            while not self._closed.wait(REFRESH_S):
                self.tick()


def approximately(seconds: float) -> str:
    """`20 s`, `4 min`, `2.5 h`."""
    if seconds < 55:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{round(seconds / 3600, 1):g} h"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
