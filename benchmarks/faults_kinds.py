"""What `benchmarks.faults` does to a run: processes killed, files harmed, the disk full, the clock wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from benchmarks.faults_project import processes_in
from benchmarks.faults_services import server_killed, worker_killed
from benchmarks.faults_trial import DVC, FLOW, LONGEST, RUNNER, STAGE, TARGET, Lost, Trial, took

CHECKPOINT = "work/pretrain/*/checkpoint.pt"


def _killed(
    trial: Trial, command: Sequence[str], longest: float, *, times: int = 1, group: bool = False, after: str = ""
) -> None:
    """At a moment within so many seconds; counted from that in which there is a file `after`."""
    for _ in range(times):
        process = trial.start(command)
        while after and process.poll() is None and not list(trial.folder.glob(after)):
            time.sleep(0.02)
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
    """Some time after its first stage has begun; it has a server of its own, which must end as well."""
    trial.copy("bare")
    process = trial.start(FLOW)
    trial.begun()
    time.sleep(trial.random.uniform(0, took("runner") / 2))
    trial.notes.append("ended before" if process.poll() is not None else "killed")
    process.kill()
    process.communicate()
    trial.no_orphan()
    trial.same(all_of_them=False)
    trial.whole()


def checkpoint_cut(trial: Trial) -> None:
    trial.copy("ready")
    for _ in range(20):  # one that ended before has left none
        _killed(trial, STAGE, took("pretrain"), group=True, after=CHECKPOINT)
        if files := sorted(trial.folder.glob(CHECKPOINT)):
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
    trial.clear(code, said, "damaged", "missing")
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
    process = trial.start(RUNNER, None, **fake)
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


KINDS: dict[str, tuple[Callable[[Trial], None], int]] = {
    "pretraining killed": (pretraining_killed, 4),
    "checkpoint cut": (checkpoint_cut, 4),
    "shard harmed": (shard_harmed, 4),
    "runner killed": (runner_killed, 1),
    "dvc killed": (dvc_killed, 1),
    "two at once": (two_at_once, 1),
    "full disk": (disk_full, 1),
    "clock jumps": (clock_jumps, 1),
    "flow killed": (flow_killed, 1),
    "worker killed": (worker_killed, 1),
    "server killed": (server_killed, 1),
}
"""What is done, and how often in a round."""
