"""What a small run survives: `python -m benchmarks.faults --seconds 400`, again and again until there are enough.

A project of its own in work/benchmarks/faults (320 images, one method, 48 steps, from raw files to a probe) is run once
undisturbed. Each trial copies it, harms it at a moment drawn from the trial's number, lets it go on as a user would,
and compares hashes of the encoder, curve, features and metrics. Trials are appended to trials.jsonl, so that a call
goes on where the last one ended; `--table` writes docs/faults.md's. Linux; `full disk` needs root (a tmpfs), `clock
jumps` libfaketime (`--faketime FILE.so`); without them these are left out, and a line says so.
"""

from __future__ import annotations

import argparse
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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults_project import ROOT, TARGET, Stage, build, processes_in
from benchmarks.tables import show
from sslflow.runtime.files import sha256

WORK = ROOT / "work" / "benchmarks" / "faults"
DONE = WORK / "trials.jsonl"
DOC = ROOT / "docs" / "faults.md"
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

    def copy(self, of: str) -> None:
        """Lay a fresh copy of `bare`, `ready` (prepared) or `done` (all has run) where the trial is."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(WORK / of, self.folder, symlinks=True)

    def start(self, command: Sequence[str], **environment: str) -> subprocess.Popen[str] | Stage:
        """A command in the copy, in a session of its own."""
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
        return subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, **own, **environment}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, command: Sequence[str], **environment: str) -> tuple[int, str]:
        """A command to its end: exit code and output. Raises `Lost` for a traceback, or where it doesn't end."""
        process = self.start(command, **environment)
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


# What is done to a run


def _killed(trial: Trial, command: Sequence[str], longest: float, *, times: int = 1, group: bool = False) -> None:
    for _ in range(times):
        process = trial.start(command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(trial.random.uniform(0.3, longest))
        trial.notes.append("ended before" if process.poll() is not None else "killed")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
        process.communicate()
        trial.no_orphan()
        trial.same(all_of_them=False)


def pretraining_killed(trial: Trial) -> None:
    trial.copy("ready")
    _killed(trial, STAGE, took("pretrain"), times=trial.random.randint(1, 3), group=True)
    trial.whole(STAGE)


def runner_killed(trial: Trial) -> None:
    trial.copy("bare")
    _killed(trial, RUNNER, took("runner"))
    trial.whole()


def dvc_killed(trial: Trial) -> None:
    """All of it at once, as where a machine goes off."""
    trial.copy("bare")
    _killed(trial, DVC, took("runner"), group=True)
    for process in processes_in(trial.folder, ids=True):  # stages have sessions of their own in some versions
        os.kill(int(process), signal.SIGKILL)
    trial.whole(DVC if trial.random.random() < 0.5 else RUNNER)


def flow_killed(trial: Trial) -> None:
    trial.copy("bare")
    _killed(trial, FLOW, took("runner") + 15)
    trial.whole()


def checkpoint_cut(trial: Trial) -> None:
    trial.copy("ready")
    for _ in range(20):  # until there is one
        _killed(trial, STAGE, took("pretrain"), group=True)
        if files := sorted(trial.folder.glob("work/pretrain/*/checkpoint.pt")):
            content = bytearray(files[-1].read_bytes())
            if trial.random.random() < 0.5:
                files[-1].write_bytes(content[: trial.random.randrange(len(content))])
                trial.notes.append("cut")
            else:
                content[trial.random.randrange(len(content))] ^= 1 << trial.random.randrange(8)
                files[-1].write_bytes(content)
                trial.notes.append("a bit turned")
            break
        shutil.rmtree(trial.folder / "artifacts/encoders", ignore_errors=True)
    trial.whole(STAGE)


def shard_harmed(trial: Trial) -> None:
    """Removed, cut, or a bit turned, its time kept or not; first met by the stage alone, then mended as it says."""
    trial.copy("done")
    shutil.rmtree(trial.folder / "artifacts/encoders")
    shard = trial.random.choice(sorted((trial.folder / "data/prepared").glob("*.npy")))
    before, content = shard.stat(), bytearray(shard.read_bytes())
    how = trial.random.choice(("removed", "cut", "bit", "bit, time kept"))
    trial.notes.append(how)
    shard.unlink()
    if how == "cut":
        shard.write_bytes(content[: trial.random.randrange(len(content))])
    elif how != "removed":
        content[trial.random.randrange(len(content))] ^= 1 << trial.random.randrange(8)
        shard.write_bytes(content)
        if how == "bit, time kept":
            os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, said = trial.run(STAGE)
    trial.clear(code, said, "damaged", "No such file", "there is no")
    if (trial.folder / "artifacts/encoders").exists():
        raise Lost("an encoder was made of it")
    shard.unlink(missing_ok=True)  # what the line says
    trial.whole(DVC if trial.random.random() < 0.5 else RUNNER)


def disk_full(trial: Trial) -> None:
    """All that is written lies on a tmpfs on which some bytes are left."""
    trial.copy("bare")
    room = trial.folder.with_name(f"{trial.folder.name}.disk")
    room.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(room)], check=True)
    copied = trial.folder
    try:
        shutil.copytree(copied, room / "project", symlinks=True)
        trial.folder = room / "project"
        free = shutil.disk_usage(room).free
        left = int(10 ** trial.random.uniform(3.5, 6.5))
        (room / "filler").write_bytes(bytes(max(0, free - left)))
        code, said = trial.run(RUNNER if trial.random.random() < 0.5 else DVC)
        trial.notes.append(f"{left:,} bytes left")
        if code:
            trial.clear(code, said, "No space left", "disk is full", "full disk")
        trial.no_orphan()
        trial.same(all_of_them=False)
        (room / "filler").unlink()
        trial.whole()
        trial.no_litter()
    finally:
        trial.folder = copied
        subprocess.run(["umount", str(room)], check=False)
        room.rmdir()


def clock_jumps(trial: Trial) -> None:
    """By up to a year, there and back, while it runs; raw files and code are from the future, or of 1980."""
    trial.copy("bare")
    control = trial.folder / "work" / "clock"
    control.parent.mkdir(exist_ok=True)
    jump = [f"{trial.random.uniform(-365, 365):+.2f}d" for _ in range(2)]
    when = time.time() + trial.random.choice((-1, 1)) * trial.random.uniform(0, 3e7)
    for file in trial.folder.glob("data/raw/*"):
        os.utime(file, (when, when))
    control.write_text(jump[0])
    fake = {
        "LD_PRELOAD": trial.faketime, "FAKETIME_TIMESTAMP_FILE": str(control), "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1",
    }  # fmt: skip
    process = trial.start(RUNNER, **fake)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(trial.random.uniform(1, took("runner")))
    control.write_text(jump[1])
    said, _ = process.communicate(timeout=LONGEST)
    trial.notes.append(f"{jump[0]}, then {jump[1]}")
    if process.returncode or "Traceback" in said:
        raise Lost(f"exit code {process.returncode}: {said[-600:]}")
    trial.same(all_of_them=True)
    code, said = trial.run([*RUNNER[:3], TARGET])
    if code or " ran" in said.splitlines()[-1]:
        raise Lost(f"it ran again: {said[-300:]}")


def two_at_once(trial: Trial) -> None:
    pair = trial.random.choice(((RUNNER, RUNNER), (RUNNER, DVC), (STAGE, STAGE), (DVC, DVC)))
    trial.copy("ready" if pair[0] == STAGE else "bare")
    trial.notes.append(" and ".join(one[2] for one in pair))
    first = trial.start(pair[0])
    time.sleep(trial.random.uniform(0, took("pretrain")))
    second = trial.start(pair[1])
    for process in (first, second):
        said, _ = process.communicate(timeout=LONGEST)
        if "Traceback" in said:
            raise Lost(f"a traceback: {said[-600:]}")
        if process.returncode:
            trial.clear(process.returncode, said, "another run is at work", "is busy", "Unable to acquire lock")
    trial.no_orphan()
    trial.same(all_of_them=pair[0] != STAGE)
    trial.whole()


@contextlib.contextmanager
def services(trial: Trial) -> Iterator[dict[str, subprocess.Popen[str] | Stage]]:
    """A server and a worker with the project's deployment, one run of which has been asked for."""
    from pipelines.server import missing

    port = 4300 + trial.random.randrange(500)
    address = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_API_URL": address, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    prefect = [sys.executable, "-m", "prefect"]
    (trial.folder / "work/prefect").mkdir(parents=True, exist_ok=True)
    server = trial.start([*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"], **own)
    found = {"server": server}
    try:
        while missing(address):
            time.sleep(0.5)
        for words in (
            ["work-pool", "create", "local", "--type", "process"],
            ["--no-prompt", "deploy", "--name", "local"],
            ["deployment", "run", "sslflow/local", "--param", f"targets={json.dumps([TARGET])}"],
        ):  # fmt: skip
            code, said = trial.run([*prefect, *words], **own)
            if code:
                raise Lost(f"prefect {words[0]}: {said[-300:]}")
        found["worker"] = trial.start([*prefect, "worker", "start", "--pool", "local"], **own)
        yield found
    finally:
        for process in found.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _service_killed(trial: Trial, which: str) -> None:
    """Some time after the first stage of a run has begun."""
    trial.copy("bare")

    def at_work() -> bool:
        return any("reaper.py" in one and "dvc" in one for one in processes_in(trial.folder))

    with services(trial) as found:
        deadline = time.monotonic() + LONGEST
        while not at_work():
            if time.monotonic() > deadline:
                raise Lost("no run began")
            time.sleep(0.2)
        time.sleep(trial.random.uniform(0, took("runner") / 3))
        trial.notes.append("killed" if at_work() else "ended before")
        found[which].kill()
        ends = time.monotonic() + LONGEST
        while any("prefect.engine" in one for one in processes_in(trial.folder)) and time.monotonic() < ends:
            time.sleep(0.5)  # a run that is under way ends by itself
        trial.notes.append(f"the run ended {LONGEST - ends + time.monotonic():.0f} s later")
    trial.no_orphan()
    trial.same(all_of_them=False)
    trial.whole()


def worker_killed(trial: Trial) -> None:
    _service_killed(trial, "worker")


def server_killed(trial: Trial) -> None:
    _service_killed(trial, "server")


KINDS: dict[str, tuple[Callable[[Trial], None], int]] = {
    "pretraining killed": (pretraining_killed, 6),
    "checkpoint cut": (checkpoint_cut, 4),
    "shard harmed": (shard_harmed, 4),
    "runner killed": (runner_killed, 3),
    "dvc killed": (dvc_killed, 2),
    "two at once": (two_at_once, 2),
    "full disk": (disk_full, 3),
    "clock jumps": (clock_jumps, 1),
    "flow killed": (flow_killed, 1),
    "worker killed": (worker_killed, 1),
    "server killed": (server_killed, 1),
}
"""What is done, and how often in a round."""


def took(what: str) -> float:
    """Seconds that the undisturbed run took of it."""
    return json.loads((WORK / "took.json").read_text())[what]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="no trial begins after so many")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="only these")
    parser.add_argument("--faketime", default="", help="libfaketime.so.1, for `clock jumps`")
    parser.add_argument("--table", action="store_true", help="write docs/faults.md's table of the trials so far")
    parser.add_argument("--lost-again", action="store_true", help="make those trials anew that were lost")
    parser.add_argument("--again", action="store_true", help="forget all trials, and the undisturbed run")
    asked = parser.parse_args()
    if asked.again:
        shutil.rmtree(WORK, ignore_errors=True)
    if asked.lost_again:
        DONE.write_text("".join(f"{json.dumps(one)}\n" for one in trials() if not one["lost"]))
    if asked.table:
        show(table(), DOC, "faults")
        return
    started = time.monotonic()
    build(WORK)
    for kind, number in rounds(asked.kinds, asked.faketime):
        if time.monotonic() - started > asked.seconds:
            break
        attempt(Trial(kind, number, asked.faketime))


def rounds(kinds: Sequence[str], faketime: str) -> Iterator[tuple[str, int]]:
    """Trials that haven't been made, round by round."""
    made = {(one["kind"], one["number"]) for one in trials()}
    left_out = {"full disk"} if os.geteuid() else set()
    left_out |= set() if faketime else {"clock jumps"}
    for kind in left_out & set(kinds):
        print(f"{kind}: left out: {'no root, for a tmpfs' if kind == 'full disk' else 'no --faketime'}")
    wanted: Counter[str] = Counter()
    while True:
        for kind in kinds:
            for _ in range(0 if kind in left_out else KINDS[kind][1]):
                wanted[kind] += 1
                if (kind, wanted[kind]) not in made:
                    yield kind, wanted[kind]


def attempt(trial: Trial) -> None:
    started = time.monotonic()
    lost = ""
    try:
        KINDS[trial.kind][0](trial)
        trial.no_litter()
    except Lost as error:
        lost = str(error)
    finally:
        for process in processes_in(trial.folder, ids=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
    if not lost:
        shutil.rmtree(trial.folder, ignore_errors=True)
    found = {"kind": trial.kind, "number": trial.number, "lost": lost, "notes": trial.notes}
    with DONE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**found, "seconds": round(time.monotonic() - started, 1)}) + "\n")
    print(f"{trial.kind} {trial.number}  {lost or 'survived'}  ({'; '.join(trial.notes)})", flush=True)


def trials() -> list[dict[str, Any]]:
    """All trials so far."""
    return [json.loads(line) for line in DONE.read_text().splitlines()] if DONE.exists() else []


def table() -> list[str]:
    """A row a kind: trials in which something was done, how often, and what came of it. A process that ended before it
    could be killed shows nothing, and isn't counted."""
    rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in trials():
        if injected(one):
            rows[one["kind"]].append(one)
    lines = ["| what was done | trials | injected | survived | lost | minutes |", "|---|---|---|---|---|---|"]
    for kind in (*(kind for kind in KINDS if kind in rows), "all"):
        own = [one for each in rows.values() for one in each] if kind == "all" else rows[kind]
        lost = sum(bool(one["lost"]) for one in own)
        minutes = sum(one["seconds"] for one in own) / 60
        times = sum(map(injected, own))
        lines.append(f"| {kind} | {len(own)} | {times} | {len(own) - lost} | {lost} | {minutes:.1f} |")
    return lines


def injected(trial: dict[str, Any]) -> int:
    """How often something was done in a trial."""
    notes = trial["notes"]
    kills = notes.count("killed")
    return kills if kills or "ended before" in notes else 1


if __name__ == "__main__":
    main()
