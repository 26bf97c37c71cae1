"""The runs that `benchmarks.dense` compares: rows with their settings, and what of them has been measured."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import shutil
import time
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from benchmarks.kept import ROOT, code_of, commit, make, plain
from benchmarks.stages import run_python
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.truth import FILE
from sslflow.ingest.images.prepare import prepare
from sslflow.runtime.files import read_json, sha256, write_json, write_text
from sslflow.settings.params import load, lookup

WORK = Path("work/benchmarks/dense")
SEEDS = (0, 1, 2)
DEVICES = ("cpu", "cuda")
DATA: dict[str, Any] = {"source": "samples:scenes", "image_size": 64, "channels": 3}
START = "lite0"
IMAGES_SEEN = 45_000
"""By each method from random weights."""
CONTINUED_EPOCHS = 2
"""Of what goes on from weights that exist: an image takes some six times as long."""
FRACTIONS = (0.01, 0.1)


@dataclass(frozen=True)
class Row:
    """A line of the tables: a method and what differs from the recipe, or a control where there is none."""

    method: str = ""
    control: str = ""
    start: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its files are called by."""
        return self.method or self.control

    @property
    def scratch(self) -> str:
        """The row of the same network from scratch; of that row itself none."""
        own = "from scratch, the network of lite0" if self.start or self.control == START else "from scratch"
        return own if self.control != "scratch" else ""

    @property
    def stages(self) -> tuple[str, ...]:
        """In their order."""
        return ("pretrain", "segment", "detect") if self.method else ("segment", "detect")


ON = {"weights": START}
ROWS: dict[str, Row] = {
    "from scratch": Row(control="scratch"),
    "from scratch, the network of lite0": Row(control="scratch", encoder={"name": "tf_efficientnet_lite0", "width": 0}),
    "random weights": Row(control="random"),
    "lite0": Row(control=START),
    "simclr": Row("simclr"),
    "densecl": Row("densecl"),
    "context_prediction": Row("context_prediction"),
    "jigsaw": Row("jigsaw"),
    "rotation": Row("rotation"),
    "simclr, continued from lite0": Row("simclr", start=ON),
    "densecl, continued from lite0": Row("densecl", start=ON),
}
CONTROLS = tuple(name for name, row in ROWS.items() if not row.method)


@dataclass(frozen=True)
class Job:
    """One row with one seed, on one of the `DEVICES`."""

    row: str
    seed: int
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        """Where its stages run."""
        own = WORK if self.device == "cpu" else WORK / self.device
        return own / self.row.replace(" ", "-").replace(",", "")

    @property
    def result(self) -> Path:
        """What is done, and with which settings and code."""
        return self.folder / "results" / f"{self.seed}.json"


def make_folder(job: Job) -> None:
    """A folder in which stages find prepared images and their settings."""
    prepared = WORK / "prepared"
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two processes one prepares, the other waits
        make(prepared, DATA, ("data", "ingest"), lambda: prepare(prepared, print, **DATA, workers=1))
    for link, goal in ((job.folder / paths.PREPARED, prepared), (job.folder / paths.SAMPLES, ROOT / paths.SAMPLES)):
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(goal.resolve(), target_is_directory=True)
    text = StringIO()
    YAML(typ="safe").dump(settings(job.row, job.device), text)
    write_text(job.folder / "params.yaml", text.getvalue())


def settings(name: str, device: str) -> dict[str, Any]:
    """Those of the recipe, but for what the row says, and where it is computed."""
    params, row = load(ROOT / "recipes/scenes.yaml"), ROWS[name]
    params["compute"] |= {"device": device, "threads": 1}
    params["start"] |= row.start
    params["encoder"] |= row.encoder
    params["pretrain"]["log_every"] = 200
    if row.method:
        own = lookup(params, f"methods.{row.method}")
        seen = round(IMAGES_SEEN / len(Dataset(WORK / "prepared").pretraining_rows))
        train = {**own.get("train", {}), "epochs": CONTINUED_EPOCHS if row.start else seen}
        block = {key: value for key, value in own.items() if key != "start"}
        params["methods"][row.method] = {**block, "train": train}
    return params


def key(job: Job) -> str:
    """Changes when the settings that the row reads do, or its images, or the code of its method."""
    content = [job.row, job.seed, *of_row(job.row, job.device)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def of_row(name: str, device: str) -> list[Any]:
    """What all seeds of a row depend on."""
    params, row = settings(name, device), ROWS[name]
    content: list[Any] = [*(sha256(WORK / "prepared" / one) for one in ("manifest.parquet", FILE))]
    content += [params[section] for section in ("compute", "encoder", "segment", "detect")]
    content += [params["starts"]] if row.start or row.control == START else []
    if row.method:
        content += [params[section] for section in ("start", "train", "views")]
        file = ROOT / f"sslflow/methods/images/{row.method}.py"
        content += [lookup(params, f"methods.{row.method}"), plain(file)]
    return content


def code(row: Row) -> dict[str, str]:
    """The code that a row's runs reach today."""
    return code_of(row.stages, *([f"sslflow.methods.images.{row.method}"] if row.method else []))


def kept(job: Job) -> dict[str, Any]:
    """What has been done with the present settings."""
    found = read_json(job.result) if job.result.exists() else {}
    return found if found and found["key"] == key(job) else {"key": key(job), "seconds": {}}


def measured(job: Job) -> dict[str, Any] | None:
    """The result, where all of it was measured with the present settings."""
    if not job.result.exists():
        return None
    found = kept(job)
    return found if set(ROWS[job.row].stages) <= set(found["seconds"]) else None


def run(job: Job) -> None:
    """Run the stages that are missing, and note each when it is done."""
    row, result = ROWS[job.row], kept(job)
    stage(job, "scan")
    for one in row.stages:
        if one in result["seconds"]:
            continue
        began = time.monotonic()
        stage(job, one, row.name, str(job.seed))
        result["seconds"][one] = round(time.monotonic() - began, 1)
        result |= {"commit": commit(), "code": code(row), "machine": machine(job.device)}
        job.result.parent.mkdir(parents=True, exist_ok=True)
        write_json(job.result, result)
    for large in (paths.trained, paths.segmenter, paths.detector):
        (job.folder / large(row.name, job.seed)).unlink(missing_ok=True)
    (job.folder / paths.segmented(row.name, job.seed) / "masks.parquet").unlink(missing_ok=True)
    shutil.rmtree(job.folder / paths.WORK / "pretrain", ignore_errors=True)
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["seconds"].items())
    print(f"{job.row}  seed {job.seed}  {took}", flush=True)


def machine(device: str) -> str:
    """What computes, and with which torch."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, one thread a run, no GPU"
    return f"{name}, torch {torch.__version__}"


def stage(job: Job, name: str, *arguments: str) -> None:
    """Run a stage."""
    words = ["-m", f"sslflow.stages.{name}", *arguments]
    run_python(words, job.folder, f"{name}-{job.seed}", f"{job.row}, seed {job.seed}")
