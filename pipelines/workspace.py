"""How one stage is run in a folder, and what became of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines import processes
from pipelines.plan import Planned
from sslflow import stagelog
from sslflow.stagelog import LOGS

# What DVC says to a person about every stage; with twenty stages it would bury what they say. The logs keep it.
ADVICE = (
    "Running stage '",
    "Generating lock file",
    "Updating lock file",
    "To track the changes with git",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "Use `dvc push`",
    "Data and pipelines are up to date",
)
# What it says where this program has stopped it.
STOPPED = ("ERROR: failed to reproduce", "ERROR: interrupted by the user")
Outcome = Literal["ran", "cached", "failed", "stopped", "not run"]


@dataclass(frozen=True)
class Result:
    """What became of a stage."""

    stage: str
    outcome: Outcome
    """`cached`: DVC found it, or its result, up to date. `not run`: a stage that it needs did not succeed."""
    message: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether its outputs are there."""
        return self.outcome in ("ran", "cached")


def print_line(stage: str, line: str) -> None:
    """The default listener: every line with the name of its stage."""
    print(f"{stage} | {line}", flush=True)


@dataclass
class Workspace:
    """How stages are run in one folder."""

    stop: processes.Stop = field(default_factory=processes.Stop)
    limit_s: float | None = None
    """Seconds that one stage may take."""
    pull: bool = False
    """Whether results that other machines have pushed to the default DVC remote are taken from there."""
    on_line: Callable[[str, str], None] = print_line
    hold: Sequence[int] = ()
    """Descriptors of locks that last until the last process of a stage has gone."""

    def run(self, stage: Planned) -> Result:
        """Bring one stage up to date. Its whole output is in `work/logs/<stage>.log`."""
        if stage.state == "fresh":
            return Result(stage.name, "cached", "up to date")
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            "DVC_NO_ANALYTICS": "1",
        }
        if stage.only_looks and (result := self._look(stage, environment)):
            return result
        heard: list[bool] = []

        def on_line(line: str) -> None:
            if line.startswith(f"Running stage '{stage.name}'"):
                heard.append(True)

        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", stage.name]
        command += ["--pull"] if self.pull else []
        ended = self._command(stage.name, command, environment, on_line)
        return _result(stage.name, ended, bool(heard))

    def _look(self, stage: Planned, environment: Mapping[str, str]) -> Result | None:
        """Run a stage's command without DVC; nothing where DVC has to run it, since what it writes is not as before."""
        before = _facts(stage.outs)
        if not stage.command or not before:
            return None
        ended = self._command(stage.name, ["/bin/sh", "-ec", stage.command], environment)
        if ended.code or ended.why:
            return _result(stage.name, ended, ran=True)
        same = _facts(stage.outs) == before
        return Result(stage.name, "cached", "it looked and found nothing new", ended.seconds) if same else None

    def _command(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        also: Callable[[str], None] = lambda line: None,
    ) -> processes.Ended:
        """Run a command for a stage, its lines to `also` and, DVC's advice left out, to `self.on_line`."""

        def on_line(line: str) -> None:
            also(line)
            if not line.startswith((*ADVICE, *STOPPED) if self.stop.called else ADVICE):
                self.on_line(name, line)

        ended = processes.run(
            command,
            LOGS / f"{name}.log",
            self.stop,
            limit_s=self.limit_s,
            environment=environment,
            hold=self.hold,
            on_line=on_line,
        )
        if ended.code or ended.why:
            stagelog.ended_by(name, ended.code, ended.why, ended.tail)
        return ended


def _facts(outs: Sequence[str]) -> dict[Path, tuple[int, int, int]]:
    """Of each file that is or lies in one of the outs, what changes when it is written; nothing where an out is
    missing."""
    if not all(Path(out).exists() for out in outs):
        return {}
    files = [file for out in map(Path, outs) for file in (out.rglob("*") if out.is_dir() else [out]) if file.is_file()]
    return {file: (facts.st_ino, facts.st_size, facts.st_mtime_ns) for file in files for facts in [file.stat()]}


def _result(name: str, ended: processes.Ended, ran: bool) -> Result:
    if ended.code == 0:
        return Result(
            name, "ran" if ran else "cached", "" if ran else "nothing that it reads has changed", ended.seconds
        )
    if ended.why == "stopped":
        return Result(name, "stopped", "stopped before its end", ended.seconds)
    lines = "\n".join(f"    {line}" for line in ended.tail)
    why = ended.why or f"exit code {ended.code}"
    return Result(name, "failed", f"{why}; its last lines (all: {LOGS / name}.log)\n{lines}", ended.seconds)
