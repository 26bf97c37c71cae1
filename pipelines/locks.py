"""One run a folder, one stage a GPU: locks that the kernel frees when the last process that holds them has gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sslflow import paths

POLL_S = 0.2


class Busy(ValueError):
    """Another run is at work in this folder."""


@contextlib.contextmanager
def one_run(folder: Path = Path()) -> Iterator[int]:
    """Hold the folder's run lock and yield its file descriptor, for children to hold too. Raises `Busy`."""
    file = folder / paths.WORK / "run.lock"
    with _opened(file) as descriptor:
        if not _taken(descriptor):
            holder = file.read_text(errors="replace").strip() or "unknown"
            raise Busy(
                f"another run is at work in this folder (process {holder}): wait for it to end, or stop it. "
                "Two at once would write the same files; a second git worktree can run beside this one."
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor


@contextlib.contextmanager
def one_gpu(names: Sequence[str], folder: Path = Path()) -> Iterator[tuple[str, int]]:
    """Wait for a free one of the GPUs named and yield its name and its lock's file descriptor."""
    with contextlib.ExitStack() as files:
        descriptors = {
            name: files.enter_context(_opened(folder / paths.WORK / f"gpu-{name.replace('/', '-')}.lock"))
            for name in names
        }
        while True:
            for name, descriptor in descriptors.items():
                if _taken(descriptor):
                    yield name, descriptor
                    return
            time.sleep(POLL_S)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
