"""How much this machine can do at once."""

from __future__ import annotations

import os

from sslflow import gpus
from sslflow.settings.params import load


def shares(jobs: int = 0) -> tuple[int, list[str]]:
    """How many stages side by side, and the GPUs that they share, from params.yaml and the machine; `jobs` > 0
    overrides.

    On CPUs `cores // compute.threads`; on GPUs one stage a GPU, each of which takes one itself (`sslflow.gpus`); one at
    a time where a stage starts several processes.
    """
    content = load()
    compute, launch = content.get("compute") or {}, str((content.get("run") or {}).get("launch", "python -m"))
    several = not launch.startswith("python")
    names = [] if str(compute.get("device", "auto")) == "cpu" else gpus.visible()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = compute.get("threads") or cores
    by_default = 1 if several else len(names) or max(1, cores // threads)
    return jobs if jobs > 0 else by_default, names
