"""Methods that go on from weights that exist, beside these as they came: `python -m benchmarks.starts`.

Each row is the pipeline's own: the stages pretrain, extract, probe and finetune in a folder of their own under
work/benchmarks/starts, with recipes/full.yaml but for what `ROWS` says. What has been measured with the same settings
is not measured again; a run that was stopped resumes. `--table docs/benchmarks.md` writes the table. Accuracies on test
images are looked at here and nowhere before: `keep` chooses by labelled training images.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import json
import os
import platform
import shutil
import statistics
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from benchmarks.kept import ROOT, code_of, commit, make, note, other_code, plain
from benchmarks.stages import run_python
from benchmarks.tables import show
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.evaluation.intervals import Interval, crossed
from sslflow.ingest.images.prepare import prepare
from sslflow.runtime.files import read_json, write_json
from sslflow.settings.params import load, lookup

WORK = Path("work/benchmarks/starts")
SEEDS = (0, 1, 2)
SETS: dict[str, dict[str, Any]] = {
    "emoji": {"source": "samples:emoji", "image_size": 64, "channels": 3},
    "fashion": {"source": "samples:fashion", "image_size": 28, "channels": 3},
}
SIDES = {"emoji": 96, "fashion": 56}
"""Pixels to which images are brought for the weights."""
START = "lite0"
WEIGHTS = "package:efficientnet-lite0"
SMALL = {"name": "resnet10", "width": 16, "stem_stride": 2, "grid": 2}
LOGGED = 34
STAGES = ("pretrain", "extract", "probe")
CODE = """
import importlib, sys
for stage in sys.argv[1].split():
    importlib.import_module(f"sslflow.stages.{stage}").main(*sys.argv[2:3], *map(int, sys.argv[3:]))
"""
"""Runs the stages named by the first argument."""


@dataclass(frozen=True)
class Row:
    """A line of the table: a method and what differs from the recipe, or weights as they are where there is none."""

    method: str = ""
    start: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    block: dict[str, Any] = field(default_factory=dict)


ON: dict[str, Any] = {"weights": START}
EPOCHS = 6
ROWS: dict[str, Row] = {
    "as it came": Row(),
    "dino, continued": Row("dino", ON, {"epochs": EPOCHS}),
    "diet, continued": Row("diet", ON, {"epochs": EPOCHS}, {"smoothing": 0.3}),
    "vicreg, continued": Row("vicreg", ON, {"epochs": EPOCHS}),
    "simclr, continued": Row("simclr", ON, {"epochs": EPOCHS}),
    "simclr, continued for longer": Row("simclr", ON, {"epochs": 2 * EPOCHS}),
    "distilled into a ResNet-10": Row("distillation", {"teacher": START}, {"epochs": 2 * EPOCHS}),
    "simclr, ResNet-10 from scratch": Row("simclr", {}, {"epochs": 2 * EPOCHS}),
}
TUNED = (
    "as it came",
    "simclr, continued",
    "simclr, continued for longer",
    "distilled into a ResNet-10",
    "simclr, ResNet-10 from scratch",
)
"""Rows that are fine-tuned as well."""


@dataclass(frozen=True)
class Job:
    """One row with one seed on one data set."""

    data: str
    row: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where its stages run."""
        return WORK / self.data / self.row.replace(" ", "-").replace(",", "")

    @property
    def name(self) -> str:
        """What its files are called by: a method, or the weights."""
        return ROWS[self.row].method or START

    @property
    def result(self) -> Path:
        """What was measured."""
        return self.folder / "results" / f"{self.seed}.json"


def make_folder(job: Job, precision: str) -> None:
    """A folder in which stages find prepared images and their settings."""
    job.folder.mkdir(parents=True, exist_ok=True)
    prepared = WORK / "prepared" / job.data
    make(prepared, SETS[job.data], ("data", "ingest"), lambda: prepare(prepared, print, **SETS[job.data]))
    link = job.folder / paths.PREPARED
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(prepared.resolve(), target_is_directory=True)
    params, row = load(ROOT / "recipes/full.yaml"), ROWS[job.row]
    params["encoder"] = SMALL
    params["compute"] |= {"device": "auto", "threads": 1}
    params["starts"] = {START: {"weights": WEIGHTS, "side": SIDES[job.data]}}
    params["start"] |= row.start
    params["train"]["precision"] = params["extract"]["precision"] = params["finetune"]["precision"] = precision
    # A row of the curve an epoch: looking costs as much as some steps.
    params["pretrain"]["log_every"] = LOGGED
    params["finetune"] |= {"fractions": [0.1, 0.01]}
    if row.method:
        own = lookup(params, f"methods.{row.method}")
        params["methods"][row.method] = {**own, **row.block, "train": {**own.get("train", {}), **row.train}}
    with (job.folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump({**params, "domains": {}, "clips": {}}, handle)


def key(job: Job) -> str:
    """Changes when the settings that the row reads do, or the code of its method."""
    params, row = load(job.folder / "params.yaml"), ROWS[job.row]
    content: list[Any] = [job.data, job.row, job.seed, SETS[job.data], params["starts"]]
    content += [params[section] for section in ("encoder", "extract", "probe", "finetune", "start", "train", "views")]
    content += [lookup(params, f"methods.{row.method}"), plain(_file(row.method))] if row.method else []
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _file(method: str) -> Path:
    return ROOT / f"sslflow/methods/images/{method}.py"


def code(row: str) -> dict[str, str]:
    """The code that a row's runs reach today."""
    method = ROWS[row].method
    stages = [*STAGES[0 if method else 2 :], *(["finetune"] if row in TUNED else [])]
    return code_of(stages, *([f"sslflow.methods.images.{method}"] if method else []))


def measured(job: Job) -> dict[str, Any] | None:
    """The result, where it was measured with the present settings."""
    found = read_json(job.result) if job.result.exists() else None
    return found if found and found["key"] == key(job) else None


def run(job: Job) -> None:
    """Train and probe one job, and write its result."""
    title = paths.run_name(job.name, job.seed)
    result: dict[str, Any] = {"key": key(job)}
    _stages(job, *STAGES[0 if ROWS[job.row].method else 2 :], *(["finetune"] if job.row in TUNED else []))
    if ROWS[job.row].method:
        trained = read_json(job.folder / paths.metrics("pretrain", title))
        result |= {name: trained[name] for name in ("seconds", "rankme", "kept_step", "step") if name in trained}
        curve = list(csv.DictReader((job.folder / paths.curve(job.name, job.seed)).open()))
        result |= {name: [float(row[name]) for row in curve] for name in ("train_knn", "agreement") if name in curve[0]}
    probed = read_json(job.folder / paths.metrics("probe", title))
    result |= {name: probed[name] for name in ("linear", "knn", "linear_validation")}
    answers = list(csv.DictReader((job.folder / paths.predictions(job.name, job.seed)).open()))
    for measure, column in (("linear", "predicted"), ("knn", "neighbours")):
        result[f"{measure}_right"] = [int(one["actual"] == one[column]) for one in answers]
    result["rows"] = [int(one["row"]) for one in answers]
    if job.row in TUNED:
        tuned = read_json(job.folder / paths.metrics("finetune", title))
        result |= {name: value for name, value in tuned.items() if name.startswith("finetune_")}
    result |= {"commit": commit(), "code": code(job.row)}
    shutil.rmtree(job.folder / paths.features(job.name, job.seed), ignore_errors=True)
    job.result.parent.mkdir(exist_ok=True)
    write_json(job.result, result)
    print(
        f"{job.data}  {job.row}  seed {job.seed}  validation {100 * result['linear_validation']:.1f} %  "
        f"{result.get('seconds', 0):.0f} s",
        flush=True,
    )


def _stages(job: Job, *stages: str) -> None:
    """Run stages one after another in one process: starting one takes as long as some of them."""
    arguments = [] if stages == ("scan",) else [job.name, str(job.seed)]
    words = ["-c", CODE, " ".join(stages), *arguments]
    run_python(words, job.folder, f"{stages[0]}-{job.seed}", f"{job.row}, seed {job.seed}, on {job.data}")


def gap(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], measure: str, groups: np.ndarray) -> Interval:
    """How far a row's accuracy is above another's, over the seeds that both have and the test images, in pairs."""
    both = [{one["seed"]: np.array(one[f"{measure}_right"], float) for one in rows} for rows in (ours, theirs)]
    seeds = sorted(both[0].keys() & both[1].keys())
    return crossed(np.stack([both[0][seed] - both[1][seed] for seed in seeds]), groups)


def table(sets: list[str], seeds: list[int]) -> Iterator[str]:
    """The tables in Markdown, one for each data set."""
    now = datetime.datetime.now(datetime.UTC).date()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores, no GPU"
    yield f"{platform.machine()}, {device}, torch {torch.__version__}; {now}. {WEIGHTS}; accuracy on test images in %."
    for data in sets:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in ROWS:
            done = [{**one, "seed": seed} for seed in seeds if (one := measured(Job(data, row, seed)))]
            if done:
                found[row] = done
        if not found:
            continue
        dataset = Dataset(WORK / "prepared" / data)
        groups = dataset.groups[np.array(next(iter(found.values()))[0]["rows"])]
        yield from ("", f"### {data}, {SETS[data]['image_size']} pixels brought to {SIDES[data]}", "")
        heads = ["", "seeds", "linear", "kNN", "above the start: linear", "kNN", "train kNN: step 0, best, last"]
        heads += ["fine-tuned 10 %", "1 %"]
        yield f"| {' | '.join(heads)} |"
        yield "|---" * len(heads) + "|"
        for row, done in found.items():
            cells = [str(len(done)), _spread(done, "linear"), _spread(done, "knn")]
            for measure in ("linear", "knn"):
                base = found.get("as it came")
                if row == "as it came" or not base:
                    cells.append("")
                    continue
                told = gap(done, base, measure, groups)
                cells.append(f"{100 * told.mean:+.1f} ({100 * told.low:+.1f} to {100 * told.high:+.1f})")
            watched = [one["train_knn"] for one in done if "train_knn" in one]
            course = [[knn[0] for knn in watched], [max(knn) for knn in watched], [knn[-1] for knn in watched]]
            cells.append(", ".join(f"{100 * statistics.fmean(part):.1f}" for part in course if part))
            cells += [_spread(done, f"finetune_{share}pct") for share in ("10", "1")]
            mark = " ‡" if any(other_code(one, code(row)) for one in done) else ""
            yield f"| {row}{mark} | {' | '.join(cells)} |"
        yield from note({row: [other_code(one, code(row)) for one in done] for row, done in found.items()})


def _spread(done: list[dict[str, Any]], measure: str) -> str:
    values = [100 * one[measure] for one in done if measure in one]
    if not values:
        return ""
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _failed(outcomes: list[Future[None]]) -> int:
    """How many of them failed; why is printed."""
    failed = 0
    for outcome in outcomes:
        try:
            outcome.result()
        except RuntimeError as error:
            failed += 1
            print(error, flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["emoji"], choices=SETS)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, one thread each")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    asked = parser.parse_args()
    wanted = [Job(data, row, seed) for seed in asked.seeds for data in asked.sets for row in asked.rows]
    for job in wanted:
        make_folder(job, asked.precision)
    missing = [job for job in wanted if measured(job) is None]
    print(f"{len(wanted)} runs, {len(missing)} to measure", flush=True)
    with ThreadPoolExecutor(asked.jobs) as workers:
        folders = {one.folder: one for one in wanted}.values()
        failed = _failed([workers.submit(_stages, job, "scan") for job in folders])
        failed += _failed([workers.submit(run, job) for job in missing])
    show(table(asked.sets, asked.seeds), asked.table, "starts" if torch.cuda.is_available() else "starts, no GPU")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
