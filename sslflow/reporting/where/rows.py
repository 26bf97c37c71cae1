"""Rows of segmentation and detection beside training from scratch: a table for each share of the labels."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.dense.protocols import PROTOCOLS
from sslflow.evaluation.intervals import Interval
from sslflow.examination.where.found import Found, Metric, Way
from sslflow.reporting.amounts import percent
from sslflow.reporting.cells import Cell, Line
from sslflow.reporting.leaderboard import CONTROLS
from sslflow.runtime.files import read_json
from sslflow.settings.params import lookup

SCRATCH = "scratch"
METRICS: dict[Metric, str] = {"miou": "masks, mIoU", "map": "boxes, mAP", "map50": "boxes, mAP50"}
TASKS: dict[Metric, str] = {"miou": "masks", "map": "boxes"}
"""The metric that a task is judged by."""
OF_VOLUMES: dict[Metric, str] = {"miou": "voxels"}
"""The same of volumes."""
STAGES: tuple[tuple[str, Metric, str], ...] = (
    ("segment", "miou", "miou"),
    ("segment_volumes", "miou", "miou"),
    ("detect", "map", "box_map"),
)
"""Stage, its metric, and what that is called among DVC's metrics."""
NAMES = {"linear": "linear", "frozen": "frozen", "tuned": "fine-tuned"}
"""What protocols are called."""


class Column(NamedTuple):
    """Of the table: a metric and a protocol."""

    metric: Metric
    protocol: str


class Rows:
    """What the settings ask for, as far as it is on the disk."""

    def __init__(self, params: Mapping[str, Any], seeds: Sequence[int], dataset: Dataset) -> None:
        run = params.get("run") or {}
        self.found = Found(dataset, seeds)
        segment, self.tasks = ("segment_volumes", OF_VOLUMES) if self.found.volumes else ("segment", TASKS)
        self.asked = {
            metric: [*(run.get(stage) or ()), *(run.get(f"{stage}_controls") or ())]
            for metric, stage in (("miou", segment), ("map", "detect"))
        }
        self.methods = list(dict.fromkeys([*(run.get(segment) or ()), *(run.get("detect") or ())]))
        begun = {name: lookup(params, f"methods.{name}.start", over="start") for name in self.methods}
        self.continued = [name for name, start in begun.items() if start.get("weights", "random") != "random"]
        self.over = cache(self.found.over)
        self.gap = cache(self.found.gap)

    def names(self, metric: Metric) -> list[str]:
        """Rows that have been made, from the best to the worst with most labels, the controls after the methods."""
        made = [name for name in self.asked["map" if metric == "map50" else metric] if self.found.ways(name, metric)]

        def place(name: str) -> tuple[bool, int, float]:
            control = list(CONTROLS).index(name) if name in CONTROLS else -1
            return name not in self.methods, control, -self._best_of(name, metric)

        return sorted(made, key=place)

    def _best_of(self, name: str, metric: Metric) -> float:
        way = self.found.ways(name, metric)[-1]
        return statistics.fmean(self.found.values(name, metric, way))

    def metrics(self) -> list[Metric]:
        """Those that any row has."""
        return [metric for metric in METRICS if self.names(metric)]

    def starts(self, metric: Metric) -> list[str]:
        """Rows of weights that exist."""
        return [name for name in self.names(metric) if name not in self.methods and name not in CONTROLS]

    def fractions(self) -> list[float]:
        """Shares of the labels, the smallest first."""
        return sorted({way.fraction for metric in self.metrics() for way in self._ways(metric)})

    def _ways(self, metric: Metric) -> set[Way]:
        return {way for name in self.names(metric) for way in self.found.ways(name, metric)}

    def columns(self) -> list[Column]:
        """Those that any row has."""
        return [
            Column(metric, protocol)
            for metric in self.metrics()
            for protocol in PROTOCOLS
            if any(way.protocol == protocol for way in self._ways(metric))
        ]

    def lines(self, fraction: float) -> Iterator[Line]:
        """The table of one share of the labels."""
        columns = self.columns()
        tops = {column: self.tops(column.metric, Way(column.protocol, fraction)) for column in columns}
        for name in dict.fromkeys(name for metric in self.metrics() for name in self.names(metric)):
            cells = [self._cell(name, column, fraction, name in tops[column]) for column in columns]
            if any(cells):
                yield Line(title(name, self.methods), name not in self.methods, cells)

    def tops(self, metric: Metric, way: Way) -> set[str]:
        """The best row trained so, and those whose distance to it may be chance; none where one row is alone."""
        means = {name: over.mean for name in self.names(metric) if (over := self.over(name, metric, way))}
        if len(means) < 2:
            return set()
        best = max(means, key=means.__getitem__)

        def beaten(name: str) -> bool:
            gap = self.gap((best, way), (name, way), metric)
            return gap.sure if gap else means[name] < means[best]

        return {name for name in means if name == best or not beaten(name)}

    def above_scratch(self, name: str, metric: Metric, way: Way) -> Interval | None:
        """How far a row is above training from scratch on the same labels, image by image."""
        if name == SCRATCH or SCRATCH not in self.names(metric):
            return None
        return self.gap((name, way), (SCRATCH, Way("tuned", way.fraction)), metric)

    def other_networks(self) -> list[str]:
        """Rows whose network need not be that of `encoder`, as from scratch is: of weights that exist, and of methods
        that go on from such."""
        names = dict.fromkeys(name for metric in self.tasks for name in self.names(metric))
        starts = {name for metric in self.tasks for name in self.starts(metric)}
        return [name for name in names if name in self.continued or name in starts]

    def shared(self, one: tuple[str, Way], other: tuple[str, Way], metric: Metric) -> str:
        """`1 of 3 seeds`, where a gap rests on fewer seeds than the row has."""
        pairs, own = self.found.pairs(one, other, metric), len(self.found.scores(one[0], metric, one[1]))
        return f"{pairs} of {seeds_in_words(own)}" if pairs < own else ""

    def best_method(self, metric: Metric, way: Way) -> str:
        """The best of the methods trained so; `""` where there is none."""
        means = {name: over.mean for name in self.methods if (over := self.over(name, metric, way))}
        return max(means, key=means.__getitem__, default="")

    def _cell(self, name: str, column: Column, fraction: float, top: bool) -> Cell | None:
        way = Way(column.protocol, fraction)
        over = self.over(name, column.metric, way)
        if not over:
            return None
        values = self.found.values(name, column.metric, way)
        words = percent(over.mean) + (f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else "")
        behind = f"95 %: {100 * over.low:.1f} to {100 * over.high:.1f}; {seeds_in_words(len(values))}"
        gap = self.above_scratch(name, column.metric, way)
        if not gap:
            return Cell(words, behind, top)
        seeds = self.shared((name, way), (SCRATCH, Way("tuned", way.fraction)), column.metric)
        return Cell(words, behind, top, in_two(gap), verdict(gap), seeds)

    def means(self) -> dict[str, dict[str, float]]:
        """Row → `miou` and `box_map`, fine-tuned with most labels, means over the seeds; of rows that are."""
        found: dict[str, dict[str, float]] = {}
        for stage, metric, shown in STAGES:
            for name in self.asked[metric]:
                read = [one for one in self._metrics(stage, name) if any(key.startswith("tuned_") for key in one)]
                values = [one[_largest(one, metric)] for one in read]
                if values:
                    found.setdefault(name, {})[shown] = statistics.fmean(values)
        return found

    def durations(self) -> list[tuple[str, str, float]]:
        """Stage, run and seconds."""
        return [
            (stage, paths.run_name(name, seed), read_json(file)["seconds"])
            for stage, metric, _ in STAGES
            for name in self.asked[metric]
            for seed in self.found.seeds
            if (file := paths.metrics(stage, paths.run_name(name, seed))).exists() and "seconds" in read_json(file)
        ]

    def _metrics(self, stage: str, name: str) -> list[dict[str, float]]:
        files = (paths.metrics(stage, paths.run_name(name, seed)) for seed in self.found.seeds)
        return [read_json(file) for file in files if file.exists()]


def _largest(metrics: Mapping[str, float], metric: Metric) -> str:
    """The metric of the encoder that was fine-tuned with the largest share of the labels: `tuned_miou_10pct`."""
    begin = f"tuned_{metric}_"
    shares = {float(key.removeprefix(begin).removesuffix("pct")): key for key in metrics if key.startswith(begin)}
    return shares[max(shares)]


def title(name: str, methods: Sequence[str]) -> str:
    """What a row is called."""
    return name if name in methods else CONTROLS.get(name, f"{name}, weights that exist")


def signed(found: Interval) -> str:
    """`+4.1 (−0.3 to +8.5)`: in points, with the 95 % interval."""
    mean, low, high = (f"{100 * value + 0.0:+.1f}" for value in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})".replace("-", "−").replace("−0.0", "+0.0")


def in_two(found: Interval) -> tuple[str, str]:
    """`+4.1` and `−0.3 to +8.5`."""
    mean, _, rest = signed(found).partition(" (")
    return mean, rest.removesuffix(")")


def verdict(found: Interval) -> str:
    """`better` and `worse` only where the interval leaves out 0."""
    if not found.sure:
        return "may be chance"
    return "better" if found.low > 0 else "worse"


def seeds_in_words(count: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} seed{'s' if count != 1 else ''}"


def share(fraction: float) -> str:
    """`1 %`."""
    return f"{100 * fraction:g} %"
