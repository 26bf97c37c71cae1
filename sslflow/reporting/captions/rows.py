"""Rows of what was answered about captions of test images, with intervals over seeds and test images."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.evaluation.intervals import Interval, crossed, of_share
from sslflow.examination.captions.questions import tested
from sslflow.reporting.amounts import percent
from sslflow.reporting.cells import Cell
from sslflow.reporting.leaderboard import CONTROLS
from sslflow.runtime.about import says_about
from sslflow.runtime.files import read_json
from sslflow.runtime.tables import read_parquet

Kind = Literal["images", "texts"]
NEAREST = "nearest"
OWN = "own"
BLIND = "blind"


class Metric(NamedTuple):
    """A column of the table: which file, which column there, and what it is called."""

    kind: Kind
    column: str
    group: str
    title: str


METRICS = {
    "zero_shot": Metric("images", "right", "class by its name", "right"),
    "told_f1": Metric("images", "told_f1", "caption", "words, F1"),
    "texts_r1": Metric("images", "r1", "texts for an image", "R@1"),
    "texts_r5": Metric("images", "r5", "texts for an image", "R@5"),
    "texts_r10": Metric("images", "r10", "texts for an image", "R@10"),
    "texts_rank": Metric("images", "rank", "texts for an image", "median rank"),
    "images_r1": Metric("texts", "r1", "images for a text", "R@1"),
    "images_r5": Metric("texts", "r5", "images for a text", "R@5"),
    "images_r10": Metric("texts", "r10", "images for a text", "R@10"),
    "images_rank": Metric("texts", "rank", "images for a text", "median rank"),
}


class Row(NamedTuple):
    """A method or a control, and how it answers."""

    name: str
    way: str


class Rows:
    """What the settings ask for, as far as it is on the disk and about the same test images."""

    def __init__(self, params: Mapping[str, Any], seeds: Sequence[int], dataset: Dataset) -> None:
        run = params.get("run") or {}
        self.methods, self.controls = list(run.get("match") or ()), list(run.get("match_controls") or ())
        self.seeds, self.dataset, self.tested = list(seeds), dataset, tested(dataset)
        self._tables = cache(self._read)
        self.over, self.gap = cache(self._over), cache(self._gap)
        rows = [
            Row(name, way) for ways in ((OWN,), (NEAREST,)) for name in (*self.methods, *self.controls) for way in ways
        ]
        self.found = [row for row in rows if self.made(row)]

    def _read(self, name: str, kind: Kind) -> dict[str, dict[int, dict[str, list]]]:
        """Way to answer → the table of each seed that has one about the test images that there are, by column."""
        found: dict[str, dict[int, dict[str, list]]] = {}
        for seed in self.seeds:
            file = paths.matched(name, seed) / f"{kind}.parquet"
            if not file.exists():
                continue
            table = read_parquet(file)
            if says_about(table, self.tested) is False:
                continue
            ways = np.array(table["way"].to_pylist())
            for way in dict.fromkeys(ways.tolist()):
                found.setdefault(way, {})[seed] = table.filter(ways == way).to_pydict()
        return found

    def made(self, row: Row) -> list[dict[str, list]]:
        """What a row says of the images, a table for each seed."""
        return list(self._tables(row.name, "images").get(row.way, {}).values())

    def texts(self, row: Row) -> list[dict[str, list]]:
        """What it says of the texts."""
        return list(self._tables(row.name, "texts").get(row.way, {}).values())

    def metrics(self) -> list[str]:
        """Those that any row has: classes are there only where images have some."""
        return [name for name in METRICS if any(self._values(row, name) is not None for row in self.found)]

    def _values(self, row: Row, metric: str, seeds: Sequence[int] = ()) -> np.ndarray | None:
        """`(seeds, n)` of the items for which it is known, of all the seeds that there are, or those given."""
        kind, column, *_ = METRICS[metric]
        made = self._tables(row.name, kind).get(row.way, {})
        tables = [made[seed] for seed in seeds or made]
        if not tables or any(len(one[column]) != len(tables[0][column]) for one in tables):
            return None
        values = np.array([one[column] for one in tables], np.float64)
        known = np.isfinite(values).all(axis=0)
        return values[:, known] if known.any() else None

    def _groups(self, row: Row, metric: str) -> np.ndarray:
        kind, column, *_ = METRICS[metric]
        table = next(iter(self._tables(row.name, kind)[row.way].values()))
        return np.array(table["group"])[np.isfinite(np.array(table[column], np.float64))]

    def _over(self, row: Row, metric: str) -> Interval | None:
        values = self._values(row, metric)
        return None if values is None else of_share(values, self._groups(row, metric))

    def _gap(self, row: Row, other: Row, metric: str) -> Interval | None:
        """By how much a row is above another, on the seeds that both have; None where there are none."""
        kind = METRICS[metric].kind
        made, others = (self._tables(one.name, kind).get(one.way, {}) for one in (row, other))
        if not (seeds := [seed for seed in made if seed in others]):
            return None
        ours, theirs = (self._values(one, metric, seeds) for one in (row, other))
        if ours is None or theirs is None or ours.shape[1] != theirs.shape[1]:
            return None
        return crossed(ours - theirs, self._groups(row, metric))

    def best(self, metric: str, way: str) -> Row | None:
        """The best of the rows that answer so."""
        means = {row: over.mean for row in self.found if row.way == way and (over := self.over(row, metric))}
        return max(means, key=means.__getitem__, default=None)

    def cell(self, row: Row, metric: str) -> Cell | None:
        """A number of the table."""
        values = self._values(row, metric)
        if values is None:
            return None
        if metric.endswith("rank"):
            ranks = np.median(values, axis=1)
            return Cell(f"{ranks.mean():.1f}", f"{len(ranks)} seeds")
        over = self.over(row, metric)
        assert over
        means = [other.mean for one in self.found if (other := self.over(one, metric))]
        behind = f"95 %: {percent(over.low)} to {percent(over.high)}; seeds: {len(values)}"
        spread = f" ± {100 * statistics.stdev(values.mean(axis=1)):.1f}" if len(values) > 1 else ""
        return Cell(f"{percent(over.mean)}{spread}", behind, over.mean == max(means) and len(means) > 1)

    def chance(self) -> dict[str, float]:
        """What each metric is by chance, and what else is the same for all rows."""
        for name in (*self.methods, *self.controls):
            for seed in self.seeds:
                file = paths.metrics("match", paths.run_name(name, seed))
                if file.exists() and (read := read_json(file)):
                    return read
        return {}

    def means(self) -> dict[str, dict[str, float]]:
        """Method → its most important numbers, means over the seeds."""
        found = {}
        for row in self.found:
            if row.way == OWN:
                shown = ("zero_shot", "told_f1", "texts_r1", "images_r1")
                found[row.name] = {one: over.mean for one in shown if (over := self.over(row, one))}
        return found

    def durations(self) -> list[tuple[str, str, float]]:
        """Stage, run and seconds."""
        return [
            ("match", paths.run_name(name, seed), seconds)
            for name in (*self.methods, *self.controls)
            for seed in self.seeds
            if (file := paths.metrics("match", paths.run_name(name, seed))).exists()
            and (seconds := read_json(file).get("seconds")) is not None
        ]

    def title(self, row: Row) -> str:
        """What a row is called."""
        if row.name == BLIND:
            return "no image: the same answer for all"
        name = row.name if row.name in self.methods else CONTROLS.get(row.name, f"{row.name}, weights that exist")
        return name if row.way == OWN else f"{name}: captions of the nearest training image"
