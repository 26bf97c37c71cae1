"""Rows of what was answered about language, with intervals over documents and seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.evaluation.intervals import Interval, crossed, of_share, resampled
from sslflow.reporting.amounts import percent
from sslflow.reporting.cells import Cell
from sslflow.runtime.files import read_json
from sslflow.runtime.tables import read_parquet

PERPLEXITY = "perplexity"
FOLLOWING = ("other", "same", "order")
TITLES = {
    PERPLEXITY: "perplexity",
    "other": "another document's",
    "same": "the same document's",
    "order": "in the other order",
    "wordsim353": "WordSim-353",
    "simlex999": "SimLex-999",
    "analogies": "analogies",
}
ROWS = {
    "random": "random weights",
    "unigram": "share of each word",
    "trigram": "trigram, Kneser–Ney",
    "words": "rare words in common (tf-idf)",
}
"""What the controls are called."""


class Rows:
    """What the settings ask for, as far as it is on the disk."""

    def __init__(self, params: Mapping[str, Any], seeds: Sequence[int], dataset: Dataset) -> None:
        run = params.get("run") or {}
        self.methods, self.controls = list(run.get("language") or ()), list(run.get("language_controls") or ())
        self.seeds, self.dataset = list(seeds), dataset
        self.tables, self.metrics = cache(self._tables), cache(self._metrics)
        self.over, self.gap = cache(self._over), cache(self._gap)
        self.found = [name for name in (*self.methods, *self.controls) if any(map(bool, self.metrics(name)))]

    def _tables(self, name: str) -> list[dict[str, np.ndarray]]:
        """Columns of the answers of each seed that has some; NaN where something wasn't asked."""
        files = [paths.language(name, seed) / "passages.parquet" for seed in self.seeds]
        read = [read_parquet(file) for file in files if file.exists()]
        return [
            {column: np.asarray(table[column].to_pylist(), np.float64) for column in table.column_names}
            for table in read
            if table.num_rows
        ]

    def _metrics(self, name: str) -> list[dict[str, float]]:
        files = [paths.metrics("language", paths.run_name(name, seed)) for seed in self.seeds]
        return [read for file in files if file.exists() and (read := read_json(file))]

    def title(self, name: str) -> str:
        """What a row is called."""
        return ROWS.get(name) or name if name in self.controls else name

    def columns(self) -> list[str]:
        """The metrics that any row has: the known ones, then sets of words of the user's own."""
        there = {key for name in self.found for one in self.metrics(name) for key in one}
        own = sorted(key.removesuffix("_asked") for key in there if key.endswith("_asked"))
        return [key for key in (*TITLES, *(one for one in own if one not in TITLES)) if key in there]

    def _values(self, name: str, column: str) -> tuple[np.ndarray, np.ndarray] | None:
        """`(seeds, n)` of the passages for which it is known, and their documents."""
        tables = self.tables(name)
        if not tables or any(len(one["row"]) != len(tables[0]["row"]) for one in tables):
            return None
        values = np.stack([one[column] for one in tables])
        known = np.isfinite(values).all(0)
        return (values[:, known], tables[0]["group"][known].astype(np.int64)) if known.any() else None

    def _over(self, name: str, metric: str) -> Interval | None:
        if metric in FOLLOWING:
            found = self._values(name, metric)
            return None if found is None else of_share(*found)
        logs = self._values(name, "log_likelihood") if metric == PERPLEXITY else None
        if logs is None:
            return None
        words = self._words(name)
        return resampled(lambda times: np.exp(-(times @ logs[0].T) / (times @ words)[:, None]), logs[1])

    def _words(self, name: str) -> np.ndarray:
        table = self.tables(name)[0]
        return table["words"][np.isfinite(table["log_likelihood"])]

    def _gap(self, name: str, other: str, metric: str) -> Interval | None:
        """By how much a row is above another on the same passages and seeds; of perplexity, by which factor."""
        column = "log_likelihood" if metric == PERPLEXITY else metric
        ours, theirs = self._values(name, column), self._values(other, column)
        if ours is None or theirs is None or ours[0].shape[1] != theirs[0].shape[1]:
            return None
        seeds = min(len(ours[0]), len(theirs[0]))
        apart = ours[0][:seeds] - theirs[0][:seeds]
        if metric != PERPLEXITY:
            return crossed(apart, ours[1])
        words = self._words(name)
        found = resampled(lambda times: -(times @ apart.T) / (times @ words)[:, None], ours[1])
        return Interval(*(float(np.exp(one)) for one in (found.mean, found.low, found.high)))

    def mean(self, name: str, metric: str) -> float | None:
        """Of a metric over the seeds; None where the row has none."""
        values = [one[metric] for one in self.metrics(name) if metric in one]
        return statistics.fmean(values) if values else None

    def best(self, metric: str, among: Sequence[str]) -> str | None:
        """The best of the rows named: of perplexity the lowest."""
        means = {name: mean for name in among if name in self.found and (mean := self.mean(name, metric)) is not None}
        choose = min if metric == PERPLEXITY else max
        return choose(means, key=means.__getitem__) if means else None

    def cell(self, name: str, metric: str) -> Cell | None:
        """A number of the table."""
        mean = self.mean(name, metric)
        if mean is None:
            return None
        over = self.over(name, metric)
        top = self.best(metric, self.found) == name
        if over is None:
            unknown = self.mean(name, f"{metric}_unknown")
            asked = self.mean(name, f"{metric}_asked") or 0
            behind = f"{asked:,.0f} asked; {percent(unknown or 0)} % have a word that is in no vocabulary"
            shown = percent(mean) if metric == "analogies" else f"{mean:.3f}".replace("-", "−")
            return Cell(shown, behind, top)
        if metric == PERPLEXITY:
            return Cell(f"{mean:.1f}", f"95 %: {over.low:.1f} to {over.high:.1f}", top)
        likeness = "; by likeness of features" if self.mean(name, "by_likeness") and name in self.methods else ""
        return Cell(percent(over.mean), f"95 %: {percent(over.low)} to {percent(over.high)}{likeness}", top)

    def means(self) -> dict[str, dict[str, float]]:
        """Method → its most important numbers."""
        shown = (PERPLEXITY, "other", "wordsim353", "analogies")
        found = {name: {key: self.mean(name, key) for key in shown} for name in self.methods if name in self.found}
        return {name: {key: one for key, one in own.items() if one is not None} for name, own in found.items()}

    def shown(self, name: str) -> dict[str, Any]:
        """Passages and words of the first seed, for people to look at."""
        files = (paths.language(name, seed) / "shown.json" for seed in self.seeds)
        return next((read_json(file) for file in files if file.exists()), {})
