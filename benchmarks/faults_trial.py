"""A trial of `benchmarks.faults`: a copy of the small project that is harmed, and how it is judged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults_project import ROOT, TARGET, Stage, processes_in
from sslflow.runtime.files import sha256

WORK = ROOT / "work" / "benchmarks" / "faults"
TIMES = ("seconds", "energy", "_per_second")
"""Of metrics, what differs from run to run."""
STAGE = ["pretrain", "as a", "process"]
RUNNER = [sys.executable, "-m", "pipelines.runner", TARGET, "--jobs", "1"]
FLOW = [sys.executable, "-m", "pipelines.flows", TARGET, "--jobs", "1"]
DVC = [sys.executable, "-m", "dvc", "repro", TARGET]
LONGEST = 240
ORPHANS_S = 20


class Lost(AssertionError):
    """What a trial did not survive, in words."""


class Trial:
    """A copy of the project to be harmed, and what is known of it."""

    def __init__(self, kind: str, number: int, faketime: str) -> None:
        self.kind, self.number, self.faketime = kind, number, faketime
        self.random = random.Random(f"{kind} {number}")
        self.folder = WORK / f"trial-{kind.replace(' ', '-')}-{number}"
        self.notes: list[str] = []
        self.heard: dict[str, str] = {}
        """What services said, by name, once they have ended."""

    def copy(self, of: str) -> None:
        """Lay a fresh copy of `bare`, `ready` (prepared) or `done` (all has run) where the trial is."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(WORK / of, self.folder, symlinks=True)

    def start(
        self, command: Sequence[str], into: Path | None = None, **environment: str
    ) -> subprocess.Popen[str] | Stage:
        """A command in the copy, in a session of its own; what it says goes `into` a file, or is there to be read."""
        if command == STAGE:
            return Stage(self.folder)
        own = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PWD": str(self.folder),  # where a deployment is of
            "PYTHONPATH": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(self.folder / "work/prefect"),
            "DVC_NO_ANALYTICS": "1",
        }
        with into.open("w") if into else contextlib.nullcontext(subprocess.PIPE) as out:
            return subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **own, **environment}, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip

    def run(self, command: Sequence[str], **environment: str) -> tuple[int, str]:
        """A command to its end: exit code and output. Raises `Lost` for a traceback, or where it doesn't end."""
        process = self.start(command, None, **environment)
        try:
            said, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise Lost(f"{command[2]} did not end within {LONGEST} s") from None
        if "Traceback (most recent" in said:
            raise Lost(f"a traceback: {said[-600:]}")
        return process.returncode or 0, said

    def whole(self, command: Sequence[str] = RUNNER, **environment: str) -> None:
        """Go on as a user would, and compare all that was made with the undisturbed run."""
        code, said = self.run(command, **environment)
        if code:
            raise Lost(f"it did not go on: {said[-600:]}")
        self.same(all_of_them=command != STAGE)

    def same(self, *, all_of_them: bool) -> None:
        """Raises `Lost` where a result that is there differs from the undisturbed run's, or, with `all_of_them`, isn't
        there."""
        expected, found = digests(WORK / "done"), digests(self.folder)
        missing = sorted(set(expected) - set(found)) if all_of_them else []
        wrong = sorted(name for name, digest in found.items() if digest != expected.get(name))
        if missing or wrong:
            raise Lost(f"missing {missing}, different {wrong}")

    def at_work(self) -> bool:
        """Whether a stage runs in the copy, by DVC."""
        return any("reaper.py" in one and "dvc" in one for one in processes_in(self.folder))

    def begun(self) -> None:
        """Wait for the first stage of a run. Raises `Lost` where none begins."""
        deadline = time.monotonic() + LONGEST
        while not self.at_work():
            if time.monotonic() > deadline:
                raise Lost("no run began")
            time.sleep(0.2)

    def no_orphan(self) -> None:
        """Raises `Lost` where some process of the copy is still there after a while."""
        deadline = time.monotonic() + ORPHANS_S
        while left := processes_in(self.folder):
            if time.monotonic() > deadline:
                raise Lost(f"orphans: {left}")
            time.sleep(0.2)

    def no_litter(self) -> None:
        """Raises `Lost` where a temporary file is left beside results."""
        if left := [str(file) for place in ("data", "artifacts") for file in (self.folder / place).rglob(".*.tmp")]:
            raise Lost(f"litter: {left}")

    def clear(self, code: int, said: str, *words: str) -> None:
        """Raises `Lost` unless a run failed with one of the words."""
        if not code or not any(word in said for word in words):
            raise Lost(f"no clear line (exit code {code}): {said[-600:]}")
        self.notes.append("clear line")


def digests(folder: Path) -> dict[str, str]:
    """Hashes of the results in a copy of the project, what is measured in time left out."""
    found = {}
    for place in ("artifacts/encoders", "artifacts/features", "artifacts/predictions", "data/prepared"):
        for file in sorted((folder / place).rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                found[str(file.relative_to(folder))] = sha256(file)
    for file in sorted((folder / "artifacts/curves").glob("*.csv")):
        found[str(file.relative_to(folder))] = sha256(file)
    for file in sorted((folder / "artifacts/metrics").rglob("*.json")):
        kept = {key: value for key, value in json.loads(file.read_text()).items() if not key.endswith(TIMES)}
        found[str(file.relative_to(folder))] = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
    return found


def took(what: str) -> float:
    """Seconds that the undisturbed run took of it."""
    return json.loads((WORK / "took.json").read_text())[what]
