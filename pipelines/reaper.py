"""Runs a command and leaves nothing of it behind: `python reaper.py SECONDS COMMAND…`, as `pipelines.processes` does.

Standard input is a pipe that the starter holds open and never writes to. When it closes, because the starter wants an
end or because it was killed, the command and all that it started get an interrupt, as by Ctrl-C, and after SECONDS a
kill. The same is done to whatever is left when the command has ended. Exits with the command's status (128 + n for
signal n).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05


def main() -> int:
    """Run the command of this process's arguments to its end, or until standard input closes."""
    grace, command = float(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # Orphans then come to this process instead of to init, those with a session of their own (torchrun's) too.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        # Handled and not ignored: what is ignored stays so in the command, as for jobs that a shell starts with `&`.
        signal.signal(number, lambda number, frame: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    status = None
    while status is None:
        ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 512)
        status = reap().get(child.pid)
        if sys.stdin.fileno() in ready:
            break
    ended = end(grace)
    child.returncode = status if status is not None else ended.get(child.pid, 1)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def reap() -> dict[int, int]:
    """Exit codes, by process, of the children that have ended since the last call."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    return ended


def end(grace: float) -> dict[int, int]:
    """Interrupt all that runs below this process, kill after `grace` seconds what is left; return when nothing is."""
    ended = reap()
    if not has_children():
        return ended
    import psutil  # here, since nearly every command ends by itself, and this process is to stay small and start fast

    this, asked, deadline = psutil.Process(), set(), time.monotonic() + grace
    while has_children():
        overdue = time.monotonic() > deadline
        for process in this.children(recursive=True):
            if overdue or process not in asked:
                asked.add(process)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL if overdue else signal.SIGINT)
        time.sleep(POLL_S)
        ended |= reap()
    return ended


def has_children() -> bool:
    """Whether this process has any child, alive or not yet reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
