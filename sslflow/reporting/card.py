"""The run card: what the numbers of a report rest on, as a table to read and as files for `sslflow compare`."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.reporting import origin
from sslflow.runtime.files import write_csv, write_json

CARD = "run.json"
IMAGES = "test_images.csv"
COLUMNS = ("row", "path", "sha256", "label", "group")
"""Of the table of test images: what says that two runs were asked about the same pictures."""
GIB = 2**30
DATA = ("path", "sha256", "split", "group")
"""Columns of the manifest that the hash of the data is over, beside the class."""


def card(
    methods: Sequence[str],
    seeds: Sequence[int],
    settings: dict[str, Any],
    dataset: Dataset,
    durations: Sequence[tuple[str, str, float]],
) -> dict[str, Any]:
    """All of it but the table: methods, seeds, code, data, settings, versions, machine, and the seconds of stages."""
    commit = origin.commit()
    threads = (settings.get("compute") or {}).get("threads") or 0
    return {
        "methods": list(methods),
        "seeds": list(seeds),
        "code": {"commit": commit.partition(" ")[0], "changed": " " in commit},
        "data": {"images": origin.count(dataset), "classes": dataset.classes, "sha256": fingerprint(dataset)},
        "params": settings,
        "versions": origin.versions(),
        "machine": machine(threads),
        "seconds": [{"stage": stage, "run": run, "seconds": seconds} for stage, run, seconds in durations],
    }


def write(folder: Path, content: dict[str, Any], dataset: Dataset) -> None:
    """The card as `run.json`, and beside it the labelled test images, a row each."""
    write_json(folder / CARD, content)
    rows = dataset.labelled_rows(TEST)
    columns = [dataset.column(name, rows) for name in ("path", "sha256", "group")] if len(rows) else [[], [], []]
    lines = (
        [row, path, sha256, dataset.classes[dataset.labels[row]], group]
        for row, path, sha256, group in zip(rows, *columns, strict=True)
    )
    write_csv(folder / IMAGES, COLUMNS, lines)


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over the path, file, split, group and class of every image that was prepared; `""` without images."""
    if not len(dataset):
        return ""
    total = hashlib.sha256()
    classes = [*dataset.classes, ""]  # -1, for no label, is the last
    for *facts, label in zip(*(dataset.column(name) for name in DATA), dataset.labels, strict=True):
        total.update("\t".join([*facts, classes[label]]).encode() + b"\n")
    return total.hexdigest()


def machine(threads: int = 0) -> dict[str, Any]:
    """The machine that this runs on; `threads` of the CPU that are used, 0: as many as cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": cores,
        "threads": threads or cores,
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "gpus": [f"{one.name}, {one.total_memory / GIB:.0f} GiB" for one in gpus],
    }


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
