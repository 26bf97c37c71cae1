"""What each adaptation method reached beside doing nothing: a table over settings, and the same in plain words."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.adaptation.task import SETTINGS
from sslflow.runtime.files import read_json
from sslflow.runtime.tables import read_parquet

BASELINE = "source_only"
"""The method that does nothing about the target: the row that others are compared with."""
LEVEL = 0.005
"""Half a point: a smaller difference is none."""
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
ORACLES = ("main_best_threshold",)
"""Scores of choices that only somebody who knows the target's labels can make."""


@dataclass(frozen=True)
class Cell:
    """A number as it is shown, how far it stands from the baseline's, and whether that is `better`, `worse` or
    `level`; '' where there is nothing to compare with."""

    words: str
    gap: str = ""
    verdict: str = ""


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
        for name in SCORES:
            values = {seed: scores[name] for seed, scores in own.items() if name in scores}
            if values:
                gaps = [value - other[seed][name] for seed, value in values.items() if name in other.get(seed, {})]
                words = _percent(list(values.values()))
                cells[name] = Cell(words) if method == BASELINE or not gaps else Cell(words, _signed(gaps), judge(gaps))
        groups = [_groups(file) for seed in self.seeds if (file := self.table(method, seed, setting, start)).exists()]
        if groups:
            cells["rejected"] = Cell(_percent([float((column >= 0).mean()) for column in groups]))
            cells["groups"] = Cell(f"{statistics.fmean(int(column.max()) + 1 for column in groups):g}")
        return cells

    def compared(self, method: str) -> Iterator[tuple[str, str, Block]]:
        """Verdict, gap and block of the method's main score, wherever the baseline has one, too."""
        for block in self.blocks():
            cell = dict(block.rows).get(method, {}).get("main")
            if cell and cell.verdict:
                yield cell.verdict, cell.gap, block


def judge(gaps: Sequence[float]) -> str:
    """`better` or `worse` where the mean difference is more than half a point and no seed says otherwise."""
    mean = statistics.fmean(gaps)
    if mean > LEVEL and min(gaps) > 0:
        return "better"
    return "worse" if mean < -LEVEL and max(gaps) < 0 else "level"


def columns(blocks: Sequence[Block]) -> dict[str, str]:
    """Names and titles of the columns that any row has, those that need no labels of the target before the others."""
    titles = SCORES | {"rejected": "rejected", "groups": "groups"}
    order = [*(name for name in titles if name not in ORACLES), *ORACLES]
    return {name: titles[name] for name in order if any(name in cells for block in blocks for _, cells in block.rows)}


def sentences(runs: Adaptations) -> list[str]:
    """Where each method is better or worse than doing nothing; first, whether one is nowhere worse."""
    if not any(runs.scores(method, block.setting, block.start) for block in runs.blocks() for method in runs.methods):
        return ["The target has no labels: what is rejected and how it is grouped can be looked at, not measured."]
    if BASELINE not in runs.methods:
        return [f"Whether it is better than doing nothing can't be told: add {BASELINE} to run.adapt_methods."]
    compared = {name: list(runs.compared(name)) for name in runs.methods if name != BASELINE}
    compared = {name: found for name, found in compared.items() if found}
    if not compared:
        return [f"Nothing can be compared yet: no other method has run beside {BASELINE}."]
    safe = [name for name, found in compared.items() if all(verdict != "worse" for verdict, _, _ in found)]
    tried = "in every setting tried" if len({block.setting for block in runs.blocks()}) > 1 else "here"
    if safe:
        first = f"{' and '.join(safe)} {'are' if len(safe) > 1 else 'is'} at least level with doing nothing {tried}."
    else:
        first = f"No method is at least level with doing nothing {tried}."
    return [first, *(_sentence(name, found) for name, found in compared.items())]


def _sentence(method: str, found: list[tuple[str, str, Block]]) -> str:
    """`gated_dance: better in opda (+10.6 points from pretrained weights); …`."""
    parts = []
    for verdict in ("better", "worse", "level"):
        where: dict[str, list[str]] = {}
        for kind, gap, block in found:
            if kind == verdict:
                where.setdefault(block.setting, []).append(f"{gap} points from {block.start} weights")
        told = [f"{setting} ({', '.join(gaps)})" for setting, gaps in where.items()]
        if told:
            parts.append(f"{verdict} in {' and '.join(told)}")
    return f"{method}: {'; '.join(parts)}."


def _groups(file: Path) -> np.ndarray:
    column = read_parquet(file, ["group"])["group"].to_numpy()
    return column if len(column) else np.array([-1])


def _percent(values: Sequence[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


def _signed(gaps: Sequence[float]) -> str:
    points = round(100 * statistics.fmean(gaps), 1) + 0.0
    return f"{points:+.1f}".replace("-", "−")
