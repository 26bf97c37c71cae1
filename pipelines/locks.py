"""One run a folder: a lock that the kernel frees when the last process that holds it has gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from sslflow import paths
from sslflow.gpus import locked

POLL_S = 0.5


class Busy(ValueError):
    """Another run is at work in this folder."""


@contextlib.contextmanager
def one_run(folder: Path = Path(), wait_s: float = 0.0) -> Iterator[int]:
    """Hold the folder's run lock and yield its file descriptor, for children to hold too. Raises `Busy` where another
    run does, and still after `wait_s` seconds."""
    file = folder / paths.WORK / "run.lock"
    with _opened(file) as descriptor:
        deadline = time.monotonic() + wait_s
        while not (taken := locked(descriptor)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if not taken:
            holder = file.read_text(errors="replace").strip() or "unknown"
            raise Busy(
                f"another run is at work in this folder (process {holder}): wait for it to end, or stop it. "
                "Two at once would write the same files; a second git worktree can run beside this one."
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def holder(folder: Path = Path()) -> int:
    """The process that runs in the folder now; 0: none."""
    file = folder / paths.WORK / "run.lock"
    with contextlib.suppress(OSError, ValueError), file.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(handle.read(20))
    return 0
