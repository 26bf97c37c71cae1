"""What pretraining is worth for masks and boxes: `python -m benchmarks.dense --table docs/dense.md`.

Each row is the pipeline's own: the stages pretrain, segment and detect in a folder of its own under
work/benchmarks/dense, with recipes/scenes.yaml but for what `ROWS` says. Pretraining sees the scenes' pool, which
nobody has annotated, segmentation and detection shares of the training scenes; test scenes are looked at once. What has
been measured with the same settings is not measured again; a run that was stopped resumes, stage by stage.
`--rows` and `--seeds` let several processes share the work, `--measured` writes the tables of what is there.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from benchmarks.kept import code_of, commit, make, note, other_code, plain
from benchmarks.tables import replace_table
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.truth import FILE
from sslflow.evaluation.intervals import Interval, crossed
from sslflow.examination.where.found import Found, Metric, Way
from sslflow.examination.where.gaps import Score, gap, over
from sslflow.ingest.images.prepare import prepare
from sslflow.reporting.where.localised import read_all
from sslflow.runtime.files import read_json, sha256, write_json, write_text
from sslflow.settings.params import load, lookup

ROOT = Path(__file__).resolve().parent.parent
WORK = Path("work/benchmarks/dense")
SEEDS = (0, 1, 2)
DATA: dict[str, Any] = {"source": "samples:scenes", "image_size": 64, "channels": 3}
START = "lite0"
IMAGES_SEEN = 45_000
"""By each method from random weights."""
CONTINUED_EPOCHS = 2
"""Of what goes on from weights that exist: an image takes some six times as long."""
FRACTIONS = (0.01, 0.1)
METRICS: dict[Metric, str] = {"miou": "Masks, mIoU", "map": "Boxes, mAP", "map50": "Boxes, mAP50"}
SHOWN = {"miou": ("linear", "frozen", "tuned"), "map": ("frozen", "tuned"), "map50": ("frozen", "tuned")}
TITLES = {"linear": "linear", "frozen": "frozen", "tuned": "fine-tuned"}


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
    """One row with one seed."""

    row: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where its stages run."""
        return WORK / self.row.replace(" ", "-").replace(",", "")

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
    YAML(typ="safe").dump(settings(job.row), text)
    write_text(job.folder / "params.yaml", text.getvalue())


def settings(name: str) -> dict[str, Any]:
    """Those of the recipe, but for what the row says."""
    params, row = load(ROOT / "recipes/scenes.yaml"), ROWS[name]
    params["compute"] |= {"device": "cpu", "threads": 1}
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
    return hashlib.sha256(json.dumps([job.seed, of_row(job.row)], sort_keys=True, default=str).encode()).hexdigest()[
        :16
    ]


@cache
def of_row(name: str) -> list[Any]:
    """What all seeds of a row depend on."""
    params, row = settings(name), ROWS[name]
    content: list[Any] = [name, *(sha256(WORK / "prepared" / one) for one in ("manifest.parquet", FILE))]
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
        result |= {"commit": commit(), "code": code(row)}
        job.result.parent.mkdir(parents=True, exist_ok=True)
        write_json(job.result, result)
    for large in (paths.trained, paths.segmenter, paths.detector):
        (job.folder / large(row.name, job.seed)).unlink(missing_ok=True)
    (job.folder / paths.segmented(row.name, job.seed) / "masks.parquet").unlink(missing_ok=True)
    shutil.rmtree(job.folder / paths.WORK / "pretrain", ignore_errors=True)
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["seconds"].items())
    print(f"{job.row}  seed {job.seed}  {took}", flush=True)


def stage(job: Job, name: str, *arguments: str) -> None:
    """Run a stage. Raises `RuntimeError` with the end of what it has printed, where it fails."""
    log = job.folder / "logs" / f"{name}-{job.seed}.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as handle:
        ended = subprocess.run(
            [sys.executable, "-m", f"sslflow.stages.{name}", *arguments],
            cwd=job.folder,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
    if ended.returncode:
        raise RuntimeError(f"{job.row}, seed {job.seed} failed:\n{log.read_text()[-3000:]}")


@cache
def found(row: str, seeds: tuple[int, ...]) -> Found:
    """What a row's runs predicted, of the seeds that are wholly measured."""
    done = [seed for seed in seeds if measured(Job(row, seed))]
    return Found(Dataset(WORK / "prepared"), done, Job(row, 0).folder)


class Tables:
    """The tables in Markdown of what has been measured."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self.rows = [row for row in ROWS if found(row, self.seeds).seeds]

    def lines(self) -> Iterator[str]:
        """All of them."""
        now = datetime.datetime.now(datetime.UTC).date()
        machine = f"{platform.machine()}, one thread a run, no GPU, torch {torch.__version__}"
        yield f"{machine}; {now}. In %, on the 500 test scenes."
        for metric in METRICS:
            for fraction in FRACTIONS:
                yield from ("", *self.table(metric, fraction))
        yield from ("", *self.pointing(), "", *self.costs())
        yield from note({row: [other_code(one, code(ROWS[row])) for one in self._results(row)] for row in self.rows})

    def table(self, metric: Metric, fraction: float) -> Iterator[str]:
        """One metric with one share of the labels, and what it says."""
        shown = SHOWN[metric]
        heads = [f"{METRICS[metric]}, {100 * fraction:g} % of the labels", "seeds", *(TITLES[one] for one in shown)]
        heads += ["fine-tuned above the same network from scratch", f"above {START}"]
        heads += [f"linear above {START}"] if "linear" in shown else []
        yield f"| {' | '.join(heads)} |"
        yield "|---" * len(heads) + "|"
        for row in self.rows:
            cells = [self._spread(row, metric, Way(one, fraction)) for one in shown]
            tuned = Way("tuned", fraction)
            beside = [(ROWS[row].scratch, tuned), (START, tuned)]
            beside += [(START, Way("linear", fraction))] if "linear" in shown else []
            cells += [signed(self.gap(row, other, metric, way)) for other, way in beside]
            yield f"| {row}{self._mark(row)} | {len(found(row, self.seeds).seeds)} | {' | '.join(cells)} |"
        yield ""
        for other in ("it", START):
            told = {
                row: self.gap(row, START if other == START else ROWS[row].scratch, metric, Way("tuned", fraction))
                for row in self.rows
                if ROWS[row].method
            }
            kinds = {
                f"above {other}": [row for row, one in told.items() if one and one.low > 0],
                f"below {other}": [row for row, one in told.items() if one and one.high < 0],
                "may be chance": [row for row, one in told.items() if one and not one.sure],
            }
            parts = [f"{kind}: {'; '.join(rows)}" for kind, rows in kinds.items() if rows]
            if parts:
                beside = "the same network from scratch" if other == "it" else other
                yield f"- Fine-tuned, beside {beside}: {'. '.join(parts)}."

    def gap(self, row: str, other: str, metric: Metric, way: Way) -> Interval | None:
        """By how much a row is above another, on the seeds that both have; None where there is nothing to compare."""
        if row == other or not other:
            return None
        ours, theirs = self.scores(row, metric, way), self.scores(other, metric, way)
        both = [seed for seed in ours if seed in theirs]
        groups = found(row, self.seeds).groups(metric)
        return gap([ours[seed] for seed in both], [theirs[seed] for seed in both], groups) if both else None

    def scores(self, row: str, metric: Metric, way: Way) -> dict[int, Score]:
        """Seed → score."""
        return found(row, self.seeds).scores(ROWS[row].name, metric, way)

    def pointing(self) -> Iterator[str]:
        """How often a thing is where a map stands out most, beside the image's centre and the pixels themselves."""
        read = {row: read_all(found(row, self.seeds), ROWS[row].name) for row in self.rows}
        read = {row: one for row, one in read.items() if one}
        if not read:
            return
        groups = found(self.rows[0], self.seeds).dataset.groups[next(iter(read.values()))[0].rows]
        heads = ["Localised without a label", "seeds", "hits", "above the centre", "above the pixels"]
        heads.append("above random weights")
        yield f"| {' | '.join(heads)} |"
        yield "|---" * len(heads) + "|"
        for row, runs in read.items():
            random = read.get("random weights", [])[: len(runs)] if row != "random weights" else []
            pairs = [(runs, "centre", runs), (runs, "pixels", runs), (runs[: len(random)], "hit", random)]
            gaps = [
                [one.found["hit"] - two.found[kind] for one, two in zip(ours, theirs, strict=True)]
                for ours, kind, theirs in pairs
            ]
            cells = [signed(crossed(np.stack(gap), groups) if gap else None) for gap in gaps]
            hits = np.mean([one.found["hit"].mean() for one in runs])
            yield f"| {row}{self._mark(row)} | {len(runs)} | {100 * hits:.1f} | {' | '.join(cells)} |"

    def costs(self) -> Iterator[str]:
        """How long the stages took."""
        yield "| Seconds, one thread | pretrain | segment | detect |"
        yield "|---|---|---|---|"
        for row in self.rows:
            took = [one["seconds"] for one in self._results(row)]
            cells = [
                f"{statistics.fmean(one[name] for one in took):.0f}" if name in took[0] else "–"
                for name in ("pretrain", "segment", "detect")
            ]
            yield f"| {row} | {' | '.join(cells)} |"

    def _results(self, row: str) -> list[dict[str, Any]]:
        return [one for seed in self.seeds if (one := measured(Job(row, seed)))]

    def _mark(self, row: str) -> str:
        return " ‡" if any(other_code(one, code(ROWS[row])) for one in self._results(row)) else ""

    def _spread(self, row: str, metric: Metric, way: Way) -> str:
        scores = list(self.scores(row, metric, way).values())
        if not scores:
            return "–"
        groups = found(row, self.seeds).groups(metric)
        values = [100 * float(score(np.ones((1, len(groups))))[0]) for score in scores]
        told = over(scores, groups)
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{100 * told.mean:.1f}{spread}"


def signed(told: Interval | None) -> str:
    """`+4.1 (+1.0 to +7.2)`, in bold where it leaves out 0."""
    if told is None:
        return "–"
    mean, low, high = (f"{round(100 * value, 1) + 0.0:+.1f}" for value in (told.mean, told.low, told.high))
    words = f"{mean} ({low} to {high})"
    return f"**{words}**" if told.sure else words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    parser.add_argument("--measured", action="store_true", help="measure nothing: tables of what is there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for job in [Job(row, seed) for seed in asked.seeds for row in asked.rows if not asked.measured]:
        make_folder(job)
        if measured(job) is None:
            try:
                run(job)
            except RuntimeError as error:
                failed += 1
                print(error, flush=True)
    lines = "\n".join(Tables(asked.seeds).lines())
    print(lines)
    if asked.table:
        replace_table(asked.table, "dense", lines)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
