"""How much this machine can do at once."""

from __future__ import annotations

import os
import shutil
import subprocess

from sslflow.settings.params import load


def shares(jobs: int = 0) -> tuple[int, list[str]]:
    """How many stages side by side, and the GPUs to give out, from params.yaml and the machine; `jobs` > 0 overrides.

    On CPUs `cores // compute.threads`; on GPUs one stage a GPU; one at a time where a stage starts several processes.
    """
    content = load()
    compute, launch = content.get("compute") or {}, str((content.get("run") or {}).get("launch", "python -m"))
    several = not launch.startswith("python")
    names = [] if str(compute.get("device", "auto")) == "cpu" else gpus()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = compute.get("threads") or cores
    by_default = 1 if several else len(names) or max(1, cores // threads)
    return jobs if jobs > 0 else by_default, [] if several else names


def gpus() -> list[str]:
    """GPUs to spread stages over, as `CUDA_VISIBLE_DEVICES` names them: its entries, or all of the machine's."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]
