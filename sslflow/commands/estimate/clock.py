"""What something takes of this machine: time as if it were alone, and memory. Imports no torch."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEDULED, STATUS, PEAK = Path("/proc/self/schedstat"), Path("/proc/self/status"), Path("/proc/self/clear_refs")
KIBI = 1024


@dataclass
class Taken:
    """What a stretch of work took."""

    seconds: float = 0.0
    """As if no other program had wanted a processor meanwhile: waits for one are not counted."""
    wall: float = 0.0
    """Seconds as they were."""
    own: float = 0.0
    """Processor seconds of this process."""
    children: float = 0.0
    """Processor seconds of processes that it started and that have ended."""
    grown: int = 0
    """Bytes of memory by which this process was larger at its largest than at the beginning."""
    gpu: int = 0
    """Bytes on the GPU, at most."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def taking(device: Any = None) -> Iterator[Taken]:
    """Measure what is done within; `device`, torch's, is waited for where it is a GPU."""
    taken = Taken()
    cuda = sys.modules["torch"].cuda if device is not None and device.type == "cuda" else None
    gc.collect()
    if cuda:
        cuda.synchronize(device)
        cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        PEAK.write_text("5")
    before = memory("VmRSS")
    wall, waited, own, children = time.perf_counter(), _waited(), time.process_time(), _children()
    try:
        yield taken
    finally:
        if cuda:
            cuda.synchronize(device)
            taken.gpu = cuda.max_memory_allocated(device)
        taken.wall = time.perf_counter() - wall
        taken.seconds = max(taken.wall - (_waited() - waited), 1e-9)
        taken.own, taken.children = time.process_time() - own, _children() - children
        taken.grown = max(0, memory("VmHWM") - before)


def memory(what: str = "VmRSS") -> int:
    """Bytes of memory that this process has now (`VmRSS`), or had at most (`VmHWM`)."""
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * KIBI
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIBI)


def _waited() -> float:
    """Seconds for which this thread was ready and had no processor; 0 where the system doesn't tell."""
    try:
        return int(SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
