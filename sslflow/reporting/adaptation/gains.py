"""What each adaptation method reached beside doing nothing: a table over settings."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.adaptation.task import SETTINGS, Task, open_task
from sslflow.evaluation.intervals import Interval
from sslflow.examination.adaptation.gaps import Decided, Score, Truth, Verdict, gap, signed, verdict
from sslflow.reporting.adaptation.decisions import read_decisions
from sslflow.runtime.files import read_json
from sslflow.runtime.tables import read_parquet

BASELINE = "source_only"
"""The method that does nothing about the target: the row that others are compared with."""
MEANINGS = {
    "as_is": "all classes as they are",
    "cda": "closed set: both domains have the same classes",
    "pda": "partial: the target lacks classes",
    "oda": "open set: the target has unknown classes",
    "opda": "open-partial: the target lacks classes and has unknown ones",
}
STARTS = ("pretrained", "random")
SCORES = {
    "main": "score",
    "unk": "UNK",
    "os_star": "OS*",
    "auroc": "AUROC",
    "main_best_threshold": "best threshold",
}
COMPARED: tuple[Score, ...] = ("main", "unk", "os_star")
"""Scores whose distance to the baseline's has an interval."""
ORACLES = ("main_best_threshold",)
"""Scores of choices that only somebody who knows the target's labels can make."""


@dataclass(frozen=True)
class Cell:
    """A number as it is shown, how far it stands from the baseline's, and what that means; None where there is nothing
    to compare with, or no interval."""

    words: str
    gap: str = ""
    verdict: Verdict | None = None
    between: Interval | None = None


@dataclass(frozen=True)
class Block:
    """All methods in one setting, from one start."""

    setting: str
    start: str
    measure: str
    """What `main` is here: `H`, `accuracy` or `UNK`; '' without labels."""
    rows: list[tuple[str, dict[str, Cell]]]
    """Method, and a cell for each column that it has."""


class Adaptations:
    """The runs of adaptation that the settings ask for, as far as they are on the disk; what others have left
    there is not looked at."""

    def __init__(self, params: Mapping[str, Any], seeds: Sequence[int]) -> None:
        plan = params.get("adapt") or {}
        self.seeds = seeds
        asked = (params.get("run") or {}).get("adapt_methods") or ()
        self.methods = [name for name in asked if any(paths.adapted(name, seed).is_dir() for seed in seeds)]
        self.settings = [name for name in plan.get("settings") or SETTINGS if self._any(f"{name}-*")]
        self.starts = [name for name in plan.get("starts") or STARTS if self._any(f"*-{name}")]
        self.domains = paths.domains(plan.get("domains") or "none")
        self.split = Path(plan["split"]) if plan.get("split") else None
        own = (params.get("adapt_methods") or {}).get("gated_dance") or {}
        self.asks = "gated_dance" in self.methods and own.get("unknown", "maybe") == "maybe"
        """Whether a method had to find out if anything is unknown."""

    def _any(self, name: str) -> bool:
        folders = (paths.adapted(method, seed) for method in self.methods for seed in self.seeds)
        return any(file for folder in folders for file in folder.glob(f"{name}.parquet"))

    def table(self, method: str, seed: int, setting: str, start: str) -> Path:
        """The file with a row for each image of the target; it may be missing."""
        return paths.adapted(method, seed) / f"{setting}-{start}.parquet"

    @property
    def origins(self) -> list[str]:
        """Where the runs from pretrained weights started, in words, each once."""
        notes = (
            self.table(method, seed, setting, STARTS[0]).with_suffix(".json")
            for method in self.methods
            for seed in self.seeds
            for setting in self.settings
        )
        return sorted({words for file in notes if file.exists() and (words := read_json(file).get("weights", ""))})

    def scores(self, method: str, setting: str, start: str) -> dict[int, dict[str, float]]:
        """The scores of each seed that has any: none without labels."""
        prefix = f"{setting}_{start}_"
        found = {
            seed: {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
            for (name, seed), metrics in self._metrics.items()
            if name == method
        }
        return {seed: scores for seed, scores in found.items() if scores}

    def means(self) -> dict[str, float]:
        """The main score of each method, a mean over settings, starts and seeds; of none where there are no labels."""
        found = {}
        for method in self.methods:
            every = [
                scores["main"]
                for setting in self.settings
                for start in self.starts
                for scores in self.scores(method, setting, start).values()
                if "main" in scores
            ]
            if every:
                found[method] = statistics.fmean(every)
        return found

    @cached_property
    def _metrics(self) -> dict[tuple[str, int], dict[str, float]]:
        files = {
            (method, seed): paths.metrics("score", paths.run_name(method, seed))
            for method in self.methods
            for seed in self.seeds
        }
        return {run: read_json(file) for run, file in files.items() if file.exists()}

    @property
    def durations(self) -> list[tuple[str, str, float]]:
        """Stage, run and seconds."""
        runs = self._metrics.items()
        return [("adapt", paths.run_name(*run), found["seconds"]) for run, found in runs if "seconds" in found]

    def blocks(self) -> list[Block]:
        """The table: for each setting and start a row for each method, the baseline first."""
        return self._blocks

    @cached_property
    def _blocks(self) -> list[Block]:
        found = []
        for setting in self.settings:
            for start in self.starts:
                rows = [(method, self._row(method, setting, start)) for method in self._ordered()]
                every = [scores for name in self.methods for scores in self.scores(name, setting, start).values()]
                measures = {"h": "H", "accuracy": "accuracy", "unk": "UNK"}
                measure = next((title for key, title in measures.items() if any(key in one for one in every)), "")
                found.append(Block(setting, start, measure, [(name, cells) for name, cells in rows if cells]))
        return [block for block in found if block.rows]

    def _ordered(self) -> list[str]:
        return sorted(self.methods, key=lambda name: name != BASELINE)

    def _row(self, method: str, setting: str, start: str) -> dict[str, Cell]:
        own, other = self.scores(method, setting, start), self.scores(BASELINE, setting, start)
        cells = {}
        between = {} if method == BASELINE else self.gaps(method, setting, start)
        for name in SCORES:
            values = {seed: scores[name] for seed, scores in own.items() if name in scores}
            if values:
                gaps = [value - other[seed][name] for seed, value in values.items() if name in other.get(seed, {})]
                words, found = _percent(list(values.values())), between.get(name)
                if found:
                    cells[name] = Cell(words, signed(found), verdict(found), found)
                else:
                    cells[name] = Cell(words, _signed(gaps) if gaps and method != BASELINE else "")
        groups = [_groups(file) for seed in self.seeds if (file := self.table(method, seed, setting, start)).exists()]
        if groups:
            cells["rejected"] = Cell(_percent([float((column >= 0).mean()) for column in groups]))
            cells["groups"] = Cell(f"{statistics.fmean(int(column.max()) + 1 for column in groups):g}")
        return cells

    def gaps(self, method: str, setting: str, start: str) -> dict[str, Interval]:
        """By how much a method is above the baseline in each score, with intervals over the seeds that both have and
        the target's labelled images."""
        files = [[self.table(name, seed, setting, start) for name in (method, BASELINE)] for seed in self.seeds]
        read = [[self._made(file, setting) for file in pair] for pair in files if all(file.exists() for file in pair)]
        if not read or not len(read[0][0][0].known):
            return {}
        ours, theirs = ([pair[side][1] for pair in read] for side in (0, 1))
        found = {name: gap(name, read[0][0][0], ours, theirs) for name in COMPARED}
        return {name: one for name, one in found.items() if one}

    @cached_property
    def _read(self) -> dict[Path, tuple[Truth, Decided]]:
        return {}

    @cached_property
    def _tasks(self) -> dict[str, Task]:
        return {setting: open_task(self.domains, setting, self.split) for setting in self.settings}

    def _made(self, file: Path, setting: str) -> tuple[Truth, Decided]:
        """What is true of the target's labelled images, and what a run decided about them."""
        if file not in self._read:
            task = self._tasks[setting]
            made = read_decisions(file, task)
            labelled, right = made.labelled, made.predicted == made.actual
            groups = task.target.groups[task.target_rows]
            self._read[file] = (
                Truth(made.known[labelled], made.actual[labelled], groups[labelled]),
                Decided((right & ~made.rejected)[labelled], made.rejected[labelled]),
            )
        return self._read[file]

    def compared(self, method: str) -> Iterator[tuple[Interval, Block]]:
        """How far the method's main score is above the baseline's, in each block that has both."""
        for block in self.blocks():
            cell = dict(block.rows).get(method, {}).get("main")
            if cell and cell.between:
                yield cell.between, block


def columns(blocks: Sequence[Block]) -> dict[str, str]:
    """Names and titles of the columns that any row has, those that need no labels of the target before the others."""
    titles = SCORES | {"rejected": "rejected", "groups": "groups"}
    order = [*(name for name in titles if name not in ORACLES), *ORACLES]
    return {name: titles[name] for name in order if any(name in cells for block in blocks for _, cells in block.rows)}


def _groups(file: Path) -> np.ndarray:
    column = read_parquet(file, ["group"])["group"].to_numpy()
    return column if len(column) else np.array([-1])


def _percent(values: Sequence[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


def _signed(gaps: Sequence[float]) -> str:
    points = round(100 * statistics.fmean(gaps), 1) + 0.0
    return f"{points:+.1f}".replace("-", "−")
