"""A program run to its end: every pipe drained, its time limited, nothing of it left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

KEPT = 8 * 2**10
"""Bytes of standard error that are kept, the last ones: a broken file can make a program complain without end."""

_LOOK_EVERY = 0.2
_PIECE = 2**16

Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    """Exit code; −n where signal n ended it."""
    why: str
    """Empty, or why it was ended from here: `took longer than 60 s`, `stopped`."""
    errors: str
    """The end of what it wrote to standard error."""


def run(
    command: Callable[[Sequence[int]], Sequence[str]],
    sinks: Sequence[Sink] = (),
    *,
    limit_s: float,
    stop: threading.Event | None = None,
    kept: int = KEPT,
) -> Ended:
    """Run the program that `command` names, given the numbers of the pipes into which it writes: one for each sink.

    A sink is called with what comes through its pipe, piece by piece, from this thread. There is no shell, and standard
    input and output lead nowhere. After `limit_s` seconds, when `stop` is set, or when anything is raised here, Ctrl-C
    included, its whole process group is killed. Should this process be killed, the program ends at its next write,
    since nobody reads any more. Raises `OSError` where it can't be started, and what a sink raises.
    """
    deadline = time.monotonic() + limit_s
    tail = bytearray()

    def keep(piece: bytes) -> None:
        tail.extend(piece)
        del tail[:-kept]

    with contextlib.ExitStack() as opened:
        waiting = opened.enter_context(selectors.DefaultSelector())
        with contextlib.ExitStack() as ours_too:  # the ends for writing, which only the program may hold
            ends = []
            for sink in [*sinks, keep]:
                reading, writing = os.pipe()
                opened.callback(os.close, reading)
                ours_too.callback(os.close, writing)
                waiting.register(reading, selectors.EVENT_READ, sink)
                ends.append(writing)
            process = subprocess.Popen(
                command(ends[:-1]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=ends[-1],
                pass_fds=ends[:-1],
                start_new_session=True,
            )
        try:
            why = _drain(waiting, process, deadline, stop)
        finally:
            _end(process)
    errors = tail.decode("utf-8", "replace")
    return Ended(process.returncode, why and why.format(limit_s), errors)


def _drain(
    waiting: selectors.BaseSelector, process: subprocess.Popen[bytes], deadline: float, stop: threading.Event | None
) -> str:
    """Hand everything to the sinks until the program has ended; else why it must be ended."""
    while True:
        if stop is not None and stop.is_set():
            return "stopped"
        if time.monotonic() > deadline:
            return "took longer than {:g} s"
        if not waiting.get_map():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_EVERY)
                return ""
            continue
        for key, _ in waiting.select(_LOOK_EVERY):
            piece = os.read(key.fd, _PIECE)
            if piece:
                key.data(piece)
            else:
                waiting.unregister(key.fd)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
