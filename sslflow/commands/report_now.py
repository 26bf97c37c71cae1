"""The report of a run that goes on: of what is up to date, and of trainings in the middle."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from sslflow import paths
from sslflow.progress import duration
from sslflow.reporting.curves import drawings
from sslflow.reporting.page import render_waiting
from sslflow.reporting.running import Training, training
from sslflow.reporting.so_far import Line, SoFar, Unfinished
from sslflow.reporting.verdicts import Said
from sslflow.runtime.files import write_text
from sslflow.settings.params import FILE
from sslflow.stages import report

PAGE = paths.ARTIFACTS / "report-now" / "index.html"
"""Git ignores it, and no stage knows it."""


def so_far(stages: int, unfinished: Iterable[Line]) -> SoFar:
    """What is to be said of so many `stages`, of which some are `unfinished`; a training that was started is told
    of by its journal."""
    lines, trainings = [], []
    for line in unfinished:
        found = training(line.stage)
        if found and line.state == "running":
            left = f"about {duration(found.seconds_left)} left"
            lines.append(Line(line.stage, line.state, f"step {found.step} of {found.steps}, {left}"))
        elif found:
            at = f"at step {found.step} of {found.steps}; resumed from its checkpoint, if it still fits"
            lines.append(Line(line.stage, "stopped", at))
        else:
            lines.append(line)
        if found and found.rows:
            trainings.append(_unfinished(line.stage, found))
    lines.sort(key=lambda line: line.state != "running")
    return SoFar(f"{datetime.now():%Y-%m-%d at %H:%M:%S}", stages, lines, trainings)


def _unfinished(stage: str, found: Training) -> Unfinished:
    method, _, seed = stage.partition("@")[2].rpartition("-")
    said = [Said(one.words, one.advice, one.sick, (int(seed),)) for one in found.findings]
    return Unfinished(stage, found.step / found.steps, said, found.silence, drawings(method, {int(seed): found.rows}))


def report_now(present: Sequence[str], told: SoFar) -> Path:
    """Write the page of what the files `present`, outputs of stages that are up to date, hold, and of what is `told`.

    The report is made in a folder that holds links to these files and nothing else: what it doesn't find there, it
    leaves out, and what it writes lies there, too, where no run looks. Raises `ValueError` where a file goes
    meanwhile.
    """
    here = Path.cwd()
    paths.WORK.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        os.nice(10)  # what runs goes first
    with tempfile.TemporaryDirectory(prefix="report-now-", dir=paths.WORK) as name:
        folder = Path(name)
        shutil.copy(FILE, folder)
        for out in (*present, str(paths.SAMPLES)):
            link = folder / out
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(here / out)
        with contextlib.chdir(folder):
            if (paths.PREPARED / "dataset.json").exists():
                report.make(here / PAGE, told)
            else:
                write_text(here / PAGE, render_waiting(told))
    return PAGE
