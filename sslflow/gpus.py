"""The GPUs of this machine, one for each stage that computes. Asks the driver, by NVML, and loads no torch.

A stage takes a GPU by a lock on a file. The kernel frees it when the last process that holds it has gone, however it
went, and it holds for whatever starts stages: `dvc repro`, the runner, a Prefect worker, in any folder of the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_S = 0.2


@dataclass(frozen=True)
class Gpu:
    """What the driver says of one."""

    uuid: str
    name: str
    memory: int
    """Bytes."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Use(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@functools.cache
def _nvml() -> Any:
    """The driver's library; None where there is none, or it doesn't start."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if not library.nvmlInit_v2():
            return library
    return None


def all_of_them() -> list[Gpu]:
    """All GPUs of the machine, in the order of `nvidia-smi`."""
    library, found = _nvml(), []
    if library is None:
        return []
    count = ctypes.c_uint()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for number in range(count.value):
        handle, memory = ctypes.c_void_p(), _Memory()
        uuid, name = ctypes.create_string_buffer(96), ctypes.create_string_buffer(96)
        if library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
            continue
        library.nvmlDeviceGetUUID(handle, uuid, 96)
        library.nvmlDeviceGetName(handle, name, 96)
        library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        found.append(Gpu(uuid.value.decode(), name.value.decode(), memory.total))
    return found


def visible() -> list[str]:
    """The GPUs that stages may take: those of `CUDA_VISIBLE_DEVICES`, or all; by UUID, where the driver tells them.

    Numbers count as `nvidia-smi` does. A name that lacks its end, as CUDA allows, is completed.
    """
    given, found = os.environ.get(VISIBLE), [gpu.uuid for gpu in all_of_them()]
    if given is None:
        return found
    names = [name.strip() for name in given.split(",") if name.strip()]
    return [_uuid(name, found) for name in names if name != "-1"]


def _uuid(name: str, found: Sequence[str]) -> str:
    if name.isdigit():
        return found[int(name)] if int(name) < len(found) else name
    return next((uuid for uuid in found if uuid.startswith(name)), name)


def use(uuid: str) -> dict[str, float]:
    """How busy a GPU is, `gpu`, a share from 0 to 1, and how many bytes of its memory are taken, `gpu_memory`."""
    library, handle, memory, share = _nvml(), ctypes.c_void_p(), _Memory(), _Use()
    if library is None or library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
        return {}
    found: dict[str, float] = {}
    if not library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(share)):
        found["gpu"] = share.gpu / 100
    if not library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
        found["gpu_memory"] = memory.used
    return found


# One job a GPU

_held: list[int] = []
"""Descriptors of this process's locks, which last as long as it does."""


def take(device: str, who: str, on_wait: Callable[[str], None]) -> list[str]:
    """Wait until a GPU is free that `device`, as `compute.device` names it, may mean, keep it as long as this process
    lives, and let CUDA see no other; its names, or none where there is no GPU or none is wanted.

    To be called before CUDA starts. `cuda:1` waits for that one. Of several processes that `torchrun` has started, the
    first takes a GPU for each, one after the other so that two jobs can't wait for each other, and the others wait for
    it. `on_wait` is called once with what is waited for; `who` is told to others who wait.
    """
    names = visible() if device.startswith("cuda") or device == "auto" else []
    if not names or _held:
        return []
    several = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if several > 1:
        names = names[:several]
        if int(os.environ.get("LOCAL_RANK", "0")):
            _wait_for(lambda: all(holder(name).get("parent") == os.getppid() for name in names), lambda: None)
            return names
        for name in sorted(names):
            _lock([name], who, on_wait)
        return names
    index = int(device.partition(":")[2] or 0)
    if ":" in device:
        return [_lock([names[index]], who, on_wait)] if index < len(names) else []
    name = _lock(names, who, on_wait)
    os.environ[VISIBLE] = name
    return [name]


def holder(name: str) -> dict[str, Any]:
    """What who holds a GPU has written down: `stage`, `pid`, `parent`, `folder`; empty where it is free."""
    file = _file(name)
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return dict(json.loads(os.pread(descriptor, 4096, 0) or b"{}"))
        finally:
            os.close(descriptor)
    return {}


def _lock(names: Sequence[str], who: str, on_wait: Callable[[str], None]) -> str:
    """Take the first of the GPUs that is free, and write down who has it."""
    opened = {name: _opened(_file(name)) for name in names}
    taken = ""

    def free() -> bool:
        nonlocal taken
        taken = next((name for name, descriptor in opened.items() if locked(descriptor)), "")
        return bool(taken)

    _wait_for(free, lambda: on_wait(_who_has(names)))
    facts = {"pid": os.getpid(), "parent": os.getppid(), "stage": who, "folder": str(Path.cwd()), "since": time.time()}
    os.ftruncate(opened[taken], 0)
    os.pwrite(opened[taken], json.dumps(facts).encode(), 0)
    for name, descriptor in opened.items():
        if name == taken:
            _held.append(descriptor)
        else:
            os.close(descriptor)
    return taken


def _who_has(names: Sequence[str]) -> str:
    found = [holder(name) for name in names]
    said = [
        f"{one.get('stage', '?')} (process {one.get('pid', '?')}, {one.get('folder', '?')})" for one in found if one
    ]
    return f"a free GPU; {len(names)} here, taken by {', '.join(said) or 'stages that start'}"


def _wait_for(condition: Callable[[], bool], on_wait: Callable[[], None]) -> None:
    told = False
    while not condition():
        if not told:
            on_wait()
            told = True
        time.sleep(POLL_S)


def _file(name: str) -> Path:
    return Path(tempfile.gettempdir()) / "sslflow-gpus" / f"{re.sub(r'[^A-Za-z0-9-]', '-', name)}.lock"


def _opened(file: Path) -> int:
    """A descriptor of a file that every user of the machine may lock."""
    with contextlib.suppress(FileExistsError):
        file.parent.mkdir()
        file.parent.chmod(0o1777)
    try:
        # Where others may write, Linux refuses to create a file that somebody else has, even if it may be opened.
        return os.open(file, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, 0o666)
        return descriptor


def locked(descriptor: int) -> bool:
    """Whether the lock of an open file could be had; it is held until the file is closed, or the process has gone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
