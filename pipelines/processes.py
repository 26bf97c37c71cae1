"""Commands with a log, a time limit, and an end: none of their processes outlives this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

REAPER = Path(__file__).with_name("reaper.py")
GRACE_S = 3.0
TAIL = 20


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; 128 + n where signal n ended it."""
    why: str
    """Empty, or what ended it from here: `stopped`, `took longer than 60 s`."""
    seconds: float
    tail: tuple[str, ...]
    """Its last lines, standard output and error together."""


class Stop:
    """Ends commands: once called, those that run are ended and no new one starts. For use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._enders: set[Callable[[], None]] = set()
        self.called = False

    def __call__(self) -> None:
        with self._lock:
            self.called = True
            enders = list(self._enders)
        for end in enders:
            end()

    @contextlib.contextmanager
    def reaches(self, end: Callable[[], None]) -> Iterator[None]:
        """Within it, a call of this `Stop` calls `end`; at once where it has been called before."""
        with self._lock:
            self._enders.add(end)
            called = self.called
        if called:
            end()
        try:
            yield
        finally:
            with self._lock:
                self._enders.discard(end)


def run(
    command: Sequence[str],
    log: Path,
    stop: Stop,
    *,
    limit_s: float | None = None,
    environment: Mapping[str, str] | None = None,
    hold: Sequence[int] = (),
    on_line: Callable[[str], None] = lambda line: None,
    folder: Path | None = None,
) -> Ended:
    """Run a command to its end, in `folder` if one is named, its output in `log` and line by line to `on_line`; past
    `limit_s` seconds it is ended.

    `hold` are file descriptors that stay open until the last process of the command has gone: a lock on them lasts
    as long. Should this process be killed, the command ends too (see `reaper.py`).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    why = ""
    tail: deque[str] = deque(maxlen=TAIL)
    process = subprocess.Popen(
        [sys.executable, str(REAPER), str(GRACE_S), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        cwd=folder,
        pass_fds=hold,
        start_new_session=True,
    )
    lifeline, printed = process.stdin, process.stdout
    assert lifeline is not None
    assert printed is not None
    ending = threading.Lock()

    def end(reason: str) -> None:
        nonlocal why
        with ending:
            if not lifeline.closed:
                why = reason
                lifeline.close()

    limit = threading.Timer(limit_s or 0, end, [f"took longer than {limit_s:g} s" if limit_s else ""])
    limit.daemon = True
    try:
        if limit_s:
            limit.start()
        with (
            stop.reaches(lambda: end("stopped")),
            log.open("w", encoding="utf-8") as file,
            open(printed.fileno(), encoding="utf-8", errors="replace", closefd=False) as output,
        ):
            _copy(output, file, tail, on_line)
            code = process.wait()
    finally:
        limit.cancel()
        with ending:
            lifeline.close()
        _wait_or_kill(process)
        printed.close()
    return Ended(code if code >= 0 else 128 - code, why, time.monotonic() - start, tuple(tail))


def _copy(output: TextIO, file: TextIO, tail: deque[str], on_line: Callable[[str], None]) -> None:
    for line in output:
        file.write(line)
        file.flush()
        if line.strip():
            tail.append(line.rstrip())
            on_line(line.rstrip())


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    """Wait for the reaper, which ends by itself once its lifeline is closed; kill its session should it fail to."""
    try:
        process.wait(timeout=GRACE_S + 5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
