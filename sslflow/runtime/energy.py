"""Energy that a computation takes, where the machine counts it: of the processors by RAPL, of a GPU by NVML."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sslflow.runtime.distributed import world_size

RAPL = Path("/sys/class/powercap")
JOULES = 3600
"""In a watt-hour."""
LOOKED_EVERY = 60.0
"""Seconds between looks at the counters: those of processors begin again at 0, the busiest after some minutes."""

Number = Callable[[], int]


@dataclass(frozen=True)
class Counter:
    """What a device has taken since some time that nobody knows."""

    kind: str
    """`cpu` or `gpu`."""
    read: Number
    """In units of its own; raises `OSError` or `ValueError` where it can't be read."""
    joules: float
    """Of a unit."""
    most: int = 0
    """The number after which it begins again at 0; 0: it never does."""


class Meter:
    """Energy from the time it is made on, of the processors with their memory and of the GPU that computes, with
    whatever else runs on these. Of the GPU alone, where the processors can't be read; nothing is known where the
    device's own counter can't be read, nor where several processes share the work."""

    def __init__(self, device: torch.device, rapl: Path = RAPL) -> None:
        self._counters = counters(device, rapl)
        self._joules = dict.fromkeys((one.kind for one in self._counters), 0.0)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._last = [0] * len(self._counters)
        self._look(first=True)
        if self._counters:
            threading.Thread(target=self._watch, daemon=True).start()

    def read(self) -> dict[str, float]:
        """Joules so far by kind; empty where nothing is known."""
        self._look()
        return dict(self._joules)

    def stop(self) -> None:
        """No more looks at the counters."""
        self._over.set()

    def _look(self, first: bool = False) -> None:
        with self._lock:
            try:
                now = [one.read() for one in self._counters]
            except (OSError, ValueError):
                self._counters, self._last, self._joules = [], [], {}
                return
            if not first:
                for one, before, after in zip(self._counters, self._last, now, strict=True):
                    self._joules[one.kind] += one.joules * (after - before + (one.most if after < before else 0))
            self._last = now

    def _watch(self) -> None:
        while not self._over.wait(LOOKED_EVERY):
            self._look()


def added(earlier: Mapping[str, float] | None, now: Mapping[str, float]) -> dict[str, float]:
    """Joules of an `earlier` process, None where there was none, and of this one; empty where either is not known."""
    if earlier is None:
        return dict(now)
    return {kind: earlier[kind] + joules for kind, joules in now.items()} if earlier.keys() == now.keys() else {}


def watt_hours(joules: Mapping[str, float]) -> dict[str, float]:
    """As metrics: `energy_wh`, and `energy_gpu_wh` where a GPU has a part in it; none where nothing is known."""
    found = {"energy_wh": sum(joules.values()) / JOULES} if joules else {}
    return {**found, "energy_gpu_wh": joules["gpu"] / JOULES} if "gpu" in joules else found


def counters(device: torch.device, rapl: Path) -> list[Counter]:
    """What counts for a computation on the device."""
    if world_size() > 1:
        return []
    if device.type != "cuda":
        return processors(rapl)
    gpu = graphics(device)
    return [gpu, *processors(rapl)] if gpu else []


def processors(folder: Path) -> list[Counter]:
    """All processors, and memory that is not in them; none where one of them can't be read."""
    found = []
    for place in sorted(folder.glob("intel-rapl:*")):
        try:
            name = (place / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                most = int((place / "max_energy_range_uj").read_text())
                found.append(Counter("cpu", _in(place / "energy_uj"), 1e-6, most))
                found[-1].read()
        except (OSError, ValueError):
            return []
    return found


def _in(file: Path) -> Number:
    return lambda: int(file.read_text())


def graphics(device: torch.device) -> Counter | None:
    """The counter of a GPU; None where its driver has none."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    except (OSError, AttributeError):
        return None
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
        return None

    def read() -> int:
        if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
            raise OSError("the GPU's driver does not count energy")
        return millijoules.value

    return Counter("gpu", read, 1e-3)
