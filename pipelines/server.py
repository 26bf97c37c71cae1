"""A Prefect server for as long as one run takes. Prefect's own temporary one stays behind where the run is killed."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pipelines import processes

HOST = "127.0.0.1"
POLL_S = 0.1


class NotStarted(RuntimeError):
    """Prefect's server does not start."""


@contextlib.contextmanager
def temporary(log: Path, start_s: float = 120) -> Iterator[str]:
    """Start a server on a free port of this machine, yield the address of its API, and end it.

    It ends too where this process is killed. Raises `NotStarted` with its last lines where it does not answer within
    `start_s` seconds.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    options = ["--no-ui", "--no-scheduler", "--no-late-runs", "--analytics-off", "--log-level", "ERROR"]
    stop, ended = processes.Stop(), []
    thread = threading.Thread(target=lambda: ended.append(processes.run([*command, *options], log, stop)))
    thread.start()
    try:
        address = f"http://{HOST}:{port}/api"
        deadline = time.monotonic() + start_s
        while not _answers(f"{address}/health"):
            if ended or time.monotonic() > deadline:
                last = "\n".join(ended[0].tail) if ended else "it does not answer"
                home = os.environ.get("PREFECT_HOME", "~/.prefect")
                raise NotStarted(
                    f"Prefect's server did not start within {start_s:g} s (log: {log}); where its database is damaged, "
                    f"remove {home}:\n{last}"
                )
            time.sleep(POLL_S)
        yield address
    finally:
        stop()
        thread.join()


def missing(address: str) -> str:
    """Empty, or why no server can be reached at the address of its API. One that asks for a key is there."""
    if not address.startswith(("http://", "https://")):
        return "that is no address, which begins with http:// or https://"
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no server answers there ({getattr(error, 'reason', error)})"


def gone(address: str, wait_s: float) -> str:
    """Why no server has answered there for `wait_s` seconds; empty as soon as one answers."""
    deadline = time.monotonic() + wait_s
    while (why := missing(address)) and time.monotonic() < deadline:
        time.sleep(1)
    return why


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == http.client.OK
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
