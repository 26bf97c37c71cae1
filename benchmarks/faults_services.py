"""Faults of what runs flows for others: Prefect's server, and a worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.faults_project import Stage, processes_in
from benchmarks.faults_trial import LONGEST, TARGET, Lost, Trial, took

PASSING_ON_S = 5
"""In which a worker has passed on what its run said last."""


@contextlib.contextmanager
def services(trial: Trial) -> Iterator[dict[str, subprocess.Popen[str] | Stage]]:
    """A server and a worker with the project's deployment, one run of which has been asked for."""
    from pipelines.server import missing

    port = 4300 + trial.random.randrange(500)
    address = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_API_URL": address, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    prefect = [sys.executable, "-m", "prefect"]
    (trial.folder / "work/prefect").mkdir(parents=True, exist_ok=True)
    # Into files: without their server they say more than a pipe holds that nobody reads.
    said = {name: trial.folder / f"work/{name}.txt" for name in ("server", "worker")}
    words = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    found = {"server": trial.start([*prefect, *words], said["server"], **own)}
    try:
        while missing(address):
            time.sleep(0.5)
        for words in (
            ["work-pool", "create", "local", "--type", "process"],
            ["--no-prompt", "deploy", "--name", "local"],
            ["deployment", "run", "sslflow/local", "--param", f"targets={json.dumps([TARGET])}"],
        ):  # fmt: skip
            code, answer = trial.run([*prefect, *words], **own)
            if code:
                raise Lost(f"prefect {words[0]}: {answer[-300:]}")
        found["worker"] = trial.start([*prefect, "worker", "start", "--pool", "local"], said["worker"], **own)
        yield found
    finally:
        for name, process in found.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            trial.heard[name] = said[name].read_text()


def _service_killed(trial: Trial, which: str) -> None:
    """Some time after the first stage of a run has begun."""
    trial.copy("bare")
    with services(trial) as found:
        trial.begun()
        time.sleep(trial.random.uniform(0, took("runner") / 3))
        trial.notes.append("killed" if trial.at_work() else "ended before")
        found[which].kill()
        started = time.monotonic()
        while any("prefect.engine" in one for one in processes_in(trial.folder)):
            if time.monotonic() - started > LONGEST:
                raise Lost(f"the flow's process is still there {LONGEST} s later")
            time.sleep(0.5)  # a run that is under way ends by itself
        trial.notes.append(f"the run ended {time.monotonic() - started:.0f} s later")
        time.sleep(PASSING_ON_S)
    if which == "server":
        trial.clear(1, trial.heard["worker"], "is lost")
    trial.no_orphan()
    trial.same(all_of_them=False)
    trial.whole()


def worker_killed(trial: Trial) -> None:
    _service_killed(trial, "worker")


def server_killed(trial: Trial) -> None:
    _service_killed(trial, "server")
