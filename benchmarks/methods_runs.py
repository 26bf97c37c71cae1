"""The runs that `benchmarks.methods` compares: rows, sets and encoders, and what of them has been measured."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ruamel.yaml import YAML

from benchmarks.kept import ROOT, code_of, commit, make, plain
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.linear import stratified
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.starts import Start, write_start
from sslflow.runtime.files import read_json, replacing, sha256, write_json
from sslflow.runtime.tables import read_parquet
from sslflow.settings.params import load, lookup
from sslflow.training.method import names

WORK = Path("work/benchmarks/methods")
IMAGES_SEEN = 60_000
SEEDS = (0, 1, 2)
SETS: dict[str, dict[str, Any]] = {
    "fashion": {"source": "samples:fashion", "image_size": 28, "channels": 1},
    "emoji": {"source": "samples:emoji", "image_size": 32, "channels": 3},
    "fashion-full": {"source": "idx", "path": str(ROOT / "data/raw"), "image_size": 28, "channels": 1},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "resnet": {"name": "resnet10", "width": 16, "stem_stride": 2, "grid": 2},
    "vit": {"name": "vit_tiny", "width": 64, "depth": 4, "patch_size": 4, "grid": 2},
}
ON_VIT = ("mae", "ibot", "dinov2", "ijepa", "dino", "moco_v3")
ONLY_VIT = ("mae", "ibot", "dinov2", "ijepa")
ONLY_COLOUR = ("colorization",)
FOR_PHOTOGRAPHS = {"crop": {"smallest": 0.2}, "colour": {"brightness": 0.4, "contrast": 0.4}, "blur": {"p": 0.5}}
TRIED: dict[str, tuple[str, dict[str, Any]]] = {
    "rotation, batches of 128": ("rotation", {"train": {"batch_size": 128, "lr": 2e-3}}),
    "simclr, views of photographs": (
        "simclr",
        {"projector": [128, 64], "train": {"lr": 2e-3}, "views": FOR_PHOTOGRAPHS},
    ),
    "barlow_twins, views of photographs": (
        "barlow_twins",
        {"projector": [256, 256], "train": {"lr": 2e-3}, "views": FOR_PHOTOGRAPHS},
    ),
    "barlow_twins, batches of 128": (
        "barlow_twins",
        {"projector": [256, 128], "redundancy": 1e-2, "train": {"batch_size": 128, "lr": 2e-3}},
    ),
}
"""Settings of earlier recipes, which today's were chosen above with test images in sight."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {"simclr, decoupled": ("simclr", {"decoupled": True}), **TRIED}
"""Rows of a method with other settings."""
TEACHER = {"weights": "package:efficientnet-lite0", "side": 64}
"""Which weights `distillation` learns from."""
HELD_OUT = {"fashion-held-out": "fashion", "emoji-held-out": "emoji"}
"""Sets in which a part of the training images is tested on, and the test images are in no split."""
SHARE_HELD_OUT = 1 / 6


@dataclass(frozen=True)
class Job:
    """One row with one seed, on one data set and encoder."""

    data: str
    encoder: str
    row: str
    seed: int
    images: int = IMAGES_SEEN

    @property
    def method(self) -> str:
        """The method, or control, of its row."""
        return VARIANTS[self.row][0] if self.row in VARIANTS else self.row

    @property
    def folder(self) -> Path:
        """Where its stages run."""
        parts = [self.data, self.encoder, *([str(self.images)] if self.images != IMAGES_SEEN else [])]
        if self.row in VARIANTS:
            parts.append(self.row.replace(", ", "-"))
        return WORK / "-".join(parts)

    @property
    def result(self) -> Path:
        """What was measured."""
        return self.folder / "results" / f"{self.method}-{self.seed}.json"


def jobs(sets: list[str], encoders: list[str], methods: list[str], seeds: list[int], images: int) -> list[Job]:
    """All that is to be measured, the first seed of everything first."""
    found = []
    for seed in seeds:
        for data in sets:
            for method in methods:
                if method in ONLY_COLOUR and SETS[HELD_OUT.get(data, data)]["channels"] != 3:
                    continue
                if method not in ONLY_VIT and "resnet" in encoders:
                    found.append(Job(data, "resnet", method, seed, images))
                if method in (*ON_VIT, "random", "supervised") and "vit" in encoders:
                    found.append(Job(data, "vit", method, seed, images))
    return found


def make_folder(job: Job) -> None:
    """A folder in which stages find prepared images and their settings, which have them see so many images."""
    folder, data = job.folder, job.data
    folder.mkdir(parents=True, exist_ok=True)
    prepared = WORK / "prepared" / data
    settings = SETS[HELD_OUT.get(data, data)]
    make(prepared, [data, settings], ("data", "ingest"), lambda: _prepare(prepared, data, settings))
    link = folder / paths.PREPARED
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(prepared.resolve(), target_is_directory=True)
    params = load(ROOT / "recipes/full.yaml")
    images = len(Dataset(prepared).pretraining_rows)
    params["encoder"] = ENCODERS[job.encoder]
    params["compute"] |= {"device": "auto", "threads": 1}
    for name in names():
        block = lookup(params, f"methods.{name}")
        train = {**lookup(params, f"methods.{name}.train"), "epochs": max(1, round(job.images / images))}
        params["methods"][name] = {**block, "train": train}
    if job.row in VARIANTS:
        own = lookup({"over": params["methods"][job.method], "own": VARIANTS[job.row][1]}, "own", over="over")
        params["methods"][job.method] = own
    params["starts"], params["start"]["teacher"] = {"teacher": TEACHER}, "teacher"
    with contextlib.chdir(folder):
        write_start("teacher", Start(**TEACHER))
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)


def _prepare(folder: Path, data: str, settings: dict[str, Any]) -> None:
    prepare(folder, print, **settings)
    if data in HELD_OUT:
        hold_out(folder / "manifest.parquet", SHARE_HELD_OUT)


def hold_out(manifest: Path, share: float) -> None:
    """Make a share of the training images of each class the test images, groups whole, and leave out those there
    were."""
    table = read_parquet(manifest)
    split, labels = table["split"].to_numpy(zero_copy_only=False).astype(object), table["label"].to_numpy()
    train = np.flatnonzero(split == TRAIN)
    groups = np.unique(table["group"].to_numpy(zero_copy_only=False)[train], return_inverse=True)[1]
    asked = stratified(torch.from_numpy(labels[train]), share, 0, torch.from_numpy(groups))
    split[split == TEST] = "left out"
    split[train[asked.numpy()]] = TEST
    with replacing(manifest) as temporary:
        pq.write_table(table.set_column(table.column_names.index("split"), "split", pa.array(split)), temporary)


def key(job: Job) -> str:
    """Changes when the run's settings or the code of its method do, comments and docstrings left out. What other code
    than today's has made below the method is kept, and marked in the table."""
    params = load(job.folder / "params.yaml")
    images = sha256(job.folder / paths.PREPARED / "manifest.parquet")
    settings = SETS[HELD_OUT.get(job.data, job.data)]
    content: list[Any] = [job.data, job.method, job.seed, settings, images, params["encoder"], params["probe"]]
    if job.method in names():
        block = f"methods.{job.method}"
        shared = [lookup(params, f"{block}.{part}", over=part) for part in ("train", "views")]
        content += [plain(ROOT / f"sslflow/methods/images/{job.method}.py"), lookup(params, block), *shared]
    if job.method == "distillation":
        content.append(TEACHER)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def measured(job: Job) -> dict[str, Any] | None:
    """The result, where it was measured with the present settings."""
    found = read_json(job.result) if job.result.exists() else None
    return found if found and found["key"] == key(job) else None


def code(job: Job) -> dict[str, str]:
    """The code that the run reaches today."""
    trained = job.method not in ("random", "pixels")
    stages = ("pretrain", "extract", "probe") if trained else ("probe",)
    return code_of(stages, *([f"sslflow.methods.images.{job.method}"] if trained else []))


def sick(job: Job) -> list[str]:
    """What the verdict on a run found sick."""
    file = job.folder / paths.verdict(job.method, job.seed)
    return [finding["kind"] for finding in read_json(file, list) if finding["sick"]] if file.exists() else []


def run(job: Job) -> None:
    """Measure one job and write its result."""
    title = paths.run_name(job.method, job.seed)
    result: dict[str, Any] = {"key": key(job)}
    if job.method not in ("random", "pixels"):
        seconds, memory = _stage(job, "pretrain")
        trained = read_json(job.folder / paths.metrics("pretrain", title))
        result |= {"seconds": seconds, "memory": memory, "rankme": trained["rankme"]}
        _stage(job, "extract")
    _stage(job, "probe")
    probed = read_json(job.folder / paths.metrics("probe", title))
    result |= {name: probed[name] for name in ("linear", "knn", "linear_validation", "converged")}
    result |= {"commit": commit(), "code": code(job)}
    shutil.rmtree(job.folder / paths.features(job.method, job.seed), ignore_errors=True)
    job.result.parent.mkdir(exist_ok=True)
    write_json(job.result, result)
    print(
        f"{job.data} {job.encoder} {job.row}-{job.seed}  validation {100 * result['linear_validation']:.1f} %  RankMe "
        f"{result.get('rankme', 0):.0f}  {result.get('seconds', 0):.0f} s  {' '.join(sick(job))}",
        flush=True,
    )


def _stage(job: Job, stage: str) -> tuple[float, float]:
    """Run a stage; seconds of processor time and the largest memory in MiB."""
    log = job.folder / "logs" / f"{stage}-{job.method}-{job.seed}.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as handle:
        child = subprocess.Popen(
            [sys.executable, "-m", f"sslflow.stages.{stage}", job.method, str(job.seed)],
            cwd=job.folder,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{stage} {job.method}-{job.seed} on {job.data} failed:\n{log.read_text()[-3000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
