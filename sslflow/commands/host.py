"""The machine that a run is planned for: its device and memory, its cores, the room on its disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from sslflow.networks.starts import PACKAGES, Start, file_of
from sslflow.runtime.device import usable

GIB = 2**30


@dataclass(frozen=True)
class Host:
    """What is there to compute with."""

    asked: str
    """As `compute.device` names it."""
    gpu: str
    """Name of the GPU; empty where there is none, or none is to be used."""
    memory: float
    """GiB, of the GPU or else of the machine."""
    bf16: bool
    cores: int
    free: float
    """GiB on the disk of the project."""
    weights: bool
    """Whether the weights that the recipes start from are installed."""

    @property
    def words(self) -> str:
        """Such as `no GPU, 2 cores, 23 GiB of memory`."""
        cores = f"{self.cores} core{'s' * (self.cores > 1)}"
        if self.gpu:
            return f"{self.gpu}, {self.memory:.0f} GiB; {cores}"
        return f"{'no GPU is used' if self.asked == 'cpu' else 'no GPU'}, {cores}, {self.memory:.0f} GiB of memory"


def host(device: str = "auto") -> Host:
    """This machine. Raises `ValueError` for a device that is not here."""
    if wrong := usable(device):
        raise ValueError(f"--device: {wrong}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    free = shutil.disk_usage(Path()).free / GIB
    gpu, bf16 = "", False
    if device != "cpu" and torch.cuda.is_available():
        number = torch.device(device).index or 0 if device != "auto" else 0
        facts = torch.cuda.get_device_properties(number)
        gpu, memory = facts.name, facts.total_memory / GIB
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Host(device, gpu, memory, bf16, cores, free, _installed())


def _installed() -> bool:
    try:
        return all((file := file_of(Start(weights=f"package:{name}"))) and file.is_file() for name in PACKAGES)
    except ValueError:
        return False
