"""What pretraining is worth beside images alone: `python -m benchmarks.modalities --table docs/modalities.md`.

Captions, depth, text and volumes, each by its recipe, and volumes with a ViT, which `mae_3d` needs, each in a folder
of its own under work/benchmarks/modalities: the pipeline's own stages prepare, pretrain, extract, probe, and the one
that judges what a probe can't. Test examples are looked at once. What has been measured with the same settings is not
measured again; a run that was stopped resumes, stage by stage. `--recipes`, `--rows` and `--seeds` let several
processes share the work, `--measured` writes the table of what is there.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from benchmarks.kept import ROOT, code_of, commit, note, other_code
from benchmarks.stages import run_python
from benchmarks.tables import show
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.reporting.answers import Answers
from sslflow.runtime.files import read_json, sha256, write_json, write_text
from sslflow.settings.params import load
from sslflow.settings.sections import data_kind

WORK = Path("work/benchmarks/modalities")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Recipe:
    """A kind of data: the stage that judges it, with the script for controls, and what of its metrics is shown."""

    stage: str
    control: str
    shown: dict[str, str]
    """Metric → title; shares are shown in %, others as they are."""
    plain: tuple[str, ...] = ()
    """Those that are no shares."""
    file: str = ""
    """The recipe that it is made of, where it isn't called so."""
    over: Mapping[str, Any] = field(default_factory=dict)
    """Settings in place of the recipe's, by their dotted names."""


RECIPES = {
    "captions": Recipe(
        "match",
        "match_control",
        {
            "own_zero_shot": "zero-shot",
            "nearest_zero_shot": "zero-shot by the nearest image",
            "own_images_r10": "images found, R@10",
            "own_told_f1": "captions told, F1",
            "nearest_told_f1": "captions of the nearest image, F1",
        },
    ),
    "depth": Recipe(
        "depth",
        "depth",
        {
            "frozen_abs_rel_1pct": "frozen, 1 %: error",
            "frozen_abs_rel_10pct": "frozen, 10 %: error",
            "tuned_abs_rel_1pct": "fine-tuned, 1 %: error",
            "tuned_abs_rel_10pct": "fine-tuned, 10 %: error",
        },
    ),
    "text": Recipe(
        "language",
        "language_control",
        {
            "perplexity": "perplexity",
            "other": "follows, not of another document",
            "same": "follows, not of the same",
            "wordsim353": "WordSim-353",
        },
        ("perplexity",),
    ),
    "volumes": Recipe(
        "segment_volumes",
        "segment_volumes",
        {
            "linear_miou_10pct": "linear, 10 %: mIoU",
            "frozen_miou_10pct": "frozen, 10 %: mIoU",
            "tuned_miou_10pct": "fine-tuned, 10 %: mIoU",
        },
    ),
}
RECIPES["volumes-vit"] = replace(
    RECIPES["volumes"],
    file="volumes",
    over={
        "encoder.name": "vit",
        "encoder.width": 96,
        "encoder.depth": 4,
        "run.methods": ["mae_3d"],
        "run.controls": ["random"],
        "run.segment_volumes": ["mae_3d"],
    },
)


def settings(recipe: str) -> dict[str, Any]:
    """Those of a recipe's file, with what stands in their place."""
    own = RECIPES[recipe]
    params = load(ROOT / f"recipes/{own.file or recipe}.yaml")
    for name, value in own.over.items():
        section, _, key = name.partition(".")
        params[section][key] = value
    return params


@dataclass(frozen=True)
class Job:
    """One stage of one row with one seed."""

    recipe: str
    stage: str
    row: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where the recipe's stages run."""
        return WORK / self.recipe

    @property
    def result(self) -> Path:
        """That it is done, and with which settings and code."""
        return self.folder / "results" / f"{self.stage}-{self.row}-{self.seed}.json"


def jobs(recipe: str, rows: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    """What is to be run, in an order in which each finds what it needs."""
    run, own = settings(recipe)["run"], RECIPES[recipe]
    for seed in seeds:
        for row in run["methods"]:
            stages = ["pretrain", "extract", "probe", *([own.stage] if row in run[own.stage] else [])]
            yield from (Job(recipe, stage, row, seed) for stage in stages if not rows or row in rows)
        for stage, controls in (("probe", run["controls"]), (own.control, run[f"{own.stage}_controls"])):
            yield from (Job(recipe, stage, row, seed) for row in controls if not rows or row in rows)


def key(job: Job) -> str:
    """Changes when the settings that a stage may read do, or its examples."""
    params = settings(job.recipe)
    methods = params.pop("methods")
    content = [job.stage, job.row, job.seed, params | {"run": None}, methods.get(job.row)]
    content += [sha256(job.folder / paths.PREPARED / "manifest.parquet")]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def measured(job: Job) -> dict[str, Any] | None:
    """The result, where it was made with the present settings."""
    if not job.result.exists():
        return None
    found = read_json(job.result)
    return found if found["key"] == key(job) else None


def make_folder(recipe: str) -> None:
    """A project with the recipe's settings and its prepared examples."""
    folder = WORK / recipe
    folder.mkdir(parents=True, exist_ok=True)
    params = settings(recipe)
    params["compute"] |= {"device": "cpu", "threads": 1}
    text = StringIO()
    YAML(typ="safe").dump(params, text)
    with (WORK / f"{recipe}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two processes one prepares, the other waits
        write_text(folder / "params.yaml", text.getvalue())
        samples = folder / paths.SAMPLES
        samples.parent.mkdir(exist_ok=True)
        if not samples.exists():
            samples.unlink(missing_ok=True)  # a link to a checkout that is gone
            samples.symlink_to((ROOT / paths.SAMPLES).resolve(), target_is_directory=True)
        run_python(["-m", "sslflow.stages.scan"], folder, "scan", f"{recipe}, scan")
        mark, data = folder / "prepared.json", json.dumps(params["data"], sort_keys=True, default=str)
        if not mark.exists() or read_json(mark)["data"] != data:
            run_python(["-m", "sslflow.stages.prepare"], folder, "prepare", f"{recipe}, prepare")
            write_json(mark, {"data": data})


def run(job: Job) -> None:
    """Run a stage, and note that it is done."""
    began = time.monotonic()
    words = ["-m", f"sslflow.stages.{job.stage}", job.row, str(job.seed)]
    run_python(words, job.folder, f"{job.stage}-{job.row}-{job.seed}", f"{job.recipe}, {job.stage} {job.row}")
    seconds = round(time.monotonic() - began, 1)
    job.result.parent.mkdir(exist_ok=True)
    write_json(job.result, {"key": key(job), "seconds": seconds, "commit": commit(), "code": code(job)})
    print(f"{job.recipe}  {job.stage} {job.row}-{job.seed}  {seconds:.0f} s", flush=True)


def code(job: Job) -> dict[str, str]:
    """The code that a stage reaches today."""
    kind = data_kind(settings(job.recipe))
    file = ROOT / f"sslflow/methods/{kind}/{job.row}.py"
    return code_of([job.stage], *([f"sslflow.methods.{kind}.{job.row}"] if file.exists() else []))


class Table:
    """A recipe's rows, as far as they have been measured."""

    def __init__(self, recipe: str, seeds: Sequence[int]) -> None:
        self.recipe, self.seeds, self.own = recipe, seeds, RECIPES[recipe]
        wanted = jobs(recipe, (), seeds) if (WORK / recipe / paths.PREPARED).exists() else ()
        self.done = {job: found for job in wanted if (found := measured(job))}

    def lines(self) -> Iterator[str]:
        """It in Markdown; nothing where nothing has been measured."""
        rows = list(dict.fromkeys(job.row for job in self.done))
        if not rows:
            return
        heads = ["", "seeds", "linear", "linear above random weights", "kNN", *self.own.shown.values(), "seconds"]
        yield from ("", f"## {self.recipe.capitalize()}", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|")
        with contextlib.chdir(WORK / self.recipe):
            answers = Answers(self.seeds, Dataset(labels=True).groups)
            cells = {row: self._cells(row, answers) for row in rows}
        for row in rows:
            yield f"| {row} | {' | '.join(cells[row])} |"
        yield from note({row: self._other_code(row) for row in rows})

    def _cells(self, row: str, answers: Answers) -> list[str]:
        found = {stage: self._metrics(stage, row) for stage in ("probe", self.own.stage)}
        gap = answers.gap(row, "random", "linear") if row != "random" else None
        beside = "–"
        if gap:
            words = f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
            beside = f"**{words}**" if gap.sure else words
        own = [_spread(found[self.own.stage], one, 1 if one in self.own.plain else 100) for one in self.own.shown]
        seeds = max(map(len, found.values()))
        of_row = [(job.seed, one["seconds"]) for job, one in self.done.items() if job.row == row]
        took = [sum(one for seed, one in of_row if seed == wanted) for wanted in {seed for seed, _ in of_row}]
        seconds = f"{statistics.fmean(took):.0f}"
        return [str(seeds), _spread(found["probe"], "linear"), beside, _spread(found["probe"], "knn"), *own, seconds]

    def _metrics(self, stage: str, row: str) -> list[dict[str, float]]:
        files = [paths.metrics(stage, paths.run_name(row, seed)) for seed in self.seeds]
        return [found for file in files if file.exists() and (found := read_json(file))]

    def _other_code(self, row: str) -> list[str]:
        """The commits alone: a stage reaches most of the library, and its modules would be a page."""
        found = [other_code(one, code(job)) for job, one in self.done.items() if job.row == row]
        return [words.partition(":")[0] for words in found]


def _spread(found: Sequence[dict[str, float]], metric: str, times: float = 100) -> str:
    """Mean and standard deviation over seeds."""
    values = [times * one[metric] for one in found if metric in one]
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def tables(recipes: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    """All of them."""
    today = datetime.datetime.now(datetime.UTC).date()
    yield f"{platform.machine()}, one thread a run, no GPU, torch {torch.__version__}; {today}. In %, perplexity aside."
    for recipe in recipes:
        yield from Table(recipe, seeds).lines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--rows", nargs="+", default=[], help="only these methods and controls")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    parser.add_argument("--measured", action="store_true", help="measure nothing: tables of what is there")
    asked = parser.parse_args()
    failed = 0
    for recipe in [] if asked.measured else asked.recipes:
        make_folder(recipe)
        for job in jobs(recipe, asked.rows, asked.seeds):
            if measured(job) is None:
                try:
                    run(job)
                except RuntimeError as error:
                    failed += 1
                    print(error, flush=True)
    show(tables(asked.recipes, asked.seeds), asked.table, "modalities")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
