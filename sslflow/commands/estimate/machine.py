"""What this machine has: memory as its group of processes may use it, free disk, and how fast the disk is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from sslflow.commands.estimate.clock import taking

TRIED = 64 * 2**20
"""Bytes that are written and read to know the disk."""
MEMORY = Path("/proc/meminfo")
CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def ram() -> tuple[int, str]:
    """Bytes of memory that all processes together may have here, and what says so."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for file in CGROUPS:
            with contextlib.suppress(ValueError, OSError):
                if (limit := int(file.read_text())) < found:
                    return limit, "as the limit of this container (cgroup) says"
        return found, "of RAM"
    return 2**63, "of RAM"


def ram_now() -> int:
    """Bytes of memory that other programs leave, as far as the system tells."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, ram()[0])
    return ram()[0]


def free_disk(folder: Path = Path()) -> int:
    """Bytes that may be written where the project lies."""
    return shutil.disk_usage(folder).free


def disk_speeds(folder: Path) -> tuple[float, float]:
    """Bytes a second that an output takes: written, hashed and copied into DVC's cache; and read when they are no
    longer in memory."""
    block = os.urandom(TRIED)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        file = Path(name) / "block"
        with taking() as saved:
            with file.open("wb") as handle:
                handle.write(block)
                handle.flush()
                os.fsync(handle.fileno())
            hashlib.md5(block, usedforsecurity=False).hexdigest()
            shutil.copyfile(file, file.with_name("cached"))
        with taking() as read, file.open("rb") as handle:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while handle.read(2**20):
                pass
    return TRIED / saved.seconds, TRIED / read.seconds
