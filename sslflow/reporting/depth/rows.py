"""Rows of depth beside their controls: a table for each share of the depth maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.evaluation.intervals import Interval
from sslflow.examination.depth.found import Found, Metric, Way
from sslflow.reporting.cells import Cell, Line
from sslflow.reporting.leaderboard import CONTROLS
from sslflow.runtime.files import read_json

TITLES: Mapping[Metric, str] = {
    "abs_rel": "error, % of the depth",
    "rmse": "RMSE, m",
    "within": "within 1.25 times, %",
    "silog": "up to scale, %",
}
HIGHER: tuple[Metric, ...] = ("within",)
"""Of which more is better."""
NAMES = {"mean": "no image", "frozen": "frozen", "tuned": "fine-tuned"}
"""What ways to make a map are called."""
BESIDE = {"frozen": "random", "tuned": "scratch"}
"""The row that a way is compared with: the same network with random weights, trained likewise."""
OWN = {**CONTROLS, "mean": "the mean map"}
"""What controls are called."""


class Rows:
    """What the settings ask for, as far as it is on the disk."""

    def __init__(self, params: Mapping[str, Any], seeds: Sequence[int], dataset: Dataset) -> None:
        run = params.get("run") or {}
        self.methods = list(run.get("depth") or ())
        self.asked = [*self.methods, *(run.get("depth_controls") or ())]
        self.found = Found(dataset, seeds)

    def names(self) -> list[str]:
        """Rows that have been made: methods from the best to the worst with most maps, then the others."""
        made = [name for name in self.asked if self.found.ways(name)]
        return sorted(made, key=lambda name: (name not in self.methods, self._of(name, self.found.ways(name)[-1])))

    def _of(self, name: str, way: Way, metric: Metric = "abs_rel") -> float:
        over = self.found.over(name, metric, way)
        assert over
        return over.mean

    def fractions(self) -> list[float]:
        """Shares of the depth maps, the smallest first."""
        return sorted({way.fraction for name in self.names() for way in self.found.ways(name)})

    def lines(self, fraction: float) -> Iterator[Line]:
        """The table of one share: all rows frozen, then all fine-tuned, then what sees no image."""
        for protocol in ("frozen", "tuned", "mean"):
            way = Way(protocol, fraction)
            names = [name for name in self.names() if way in self.found.ways(name)]
            tops = {metric: self._tops(names, metric, way) for metric in TITLES}
            for name in names:
                cells = [self._cell(name, metric, way, name in tops[metric]) for metric in TITLES]
                yield Line(title(name, self.methods), name not in self.methods, cells, NAMES[protocol])

    def _tops(self, names: Sequence[str], metric: Metric, way: Way) -> set[str]:
        """The best of the rows, and those whose distance to it may be chance; none where one is alone."""
        if len(names) < 2:
            return set()
        best = min(names, key=lambda name: _cost(self._of(name, way, metric), metric))
        gaps = {name: self.found.gap((name, way), (best, way), metric) for name in names if name != best}
        return {best, *(name for name, gap in gaps.items() if gap and not gap.sure)}

    def best(self, names: Sequence[str], way: Way) -> str:
        """The row with the smallest error of those that were made so; `""` where none was."""
        made = [name for name in names if way in self.found.ways(name)]
        return min(made, key=lambda name: self._of(name, way), default="")

    def beside(self, way: Way) -> tuple[str, Way] | None:
        """What rows made so are compared with, where it has been made."""
        name = BESIDE.get(way.protocol, "")
        return (name, way) if way in self.found.ways(name) and name in self.asked else None

    def _cell(self, name: str, metric: Metric, way: Way, top: bool) -> Cell | None:
        over = self.found.over(name, metric, way)
        if not over:
            return None
        behind = f"95 %: {shown(over.low, metric)} to {shown(over.high, metric)}"
        other = self.beside(way)
        gap = self.found.gap((name, way), other, metric) if other and other[0] != name else None
        if not gap:
            return Cell(shown(over.mean, metric), behind, top)
        words = tuple(signed(value, metric) for value in (gap.mean, gap.low, gap.high))
        said = "may be chance" if not gap.sure else "better" if _cost(gap.mean, metric) < 0 else "worse"
        return Cell(shown(over.mean, metric), behind, top, (words[0], f"{words[1]} to {words[2]}"), said)

    def means(self) -> dict[str, dict[str, float]]:
        """Row → `depth_error`, with most maps, fine-tuned, or else as it was made; means over the seeds."""
        found = {}
        for name in self.names():
            way = max(self.found.ways(name), key=lambda way: (way.protocol == "tuned", way.fraction))
            found[name] = {"depth_error": self._of(name, way)}
        return found

    def durations(self) -> list[tuple[str, str, float]]:
        """Stage, run and seconds."""
        runs = [paths.run_name(name, seed) for name in self.asked for seed in self.found.seeds]
        facts = {run: read_json(file) for run in runs if (file := paths.metrics("depth", run)).exists()}
        return [("depth", run, one["seconds"]) for run, one in facts.items() if "seconds" in one]

    def absent(self) -> list[str]:
        """Which rows that were asked for rest on fewer seeds, or have not been made, or of other test images."""
        wanted, said = len(self.found.seeds), []
        for name in self.asked:
            if (seeds := self.found.seeds_of(name)) < wanted:
                others = self.found.others(name)
                more = f", {others} made of other test images: left out" if others else ""
                said.append(f"{title(name, self.methods)}: {seeds} of {wanted} seeds{more}")
        return said

    def seed_with(self, name: str, way: Way) -> int:
        """The first seed of which a row was made so."""
        return next(seed for seed in self.found.seeds if self.found.images(name, seed, "abs_rel", way) is not None)


def _cost(value: float, metric: Metric) -> float:
    return -value if metric in HIGHER else value


def title(name: str, methods: Sequence[str]) -> str:
    """What a row is called."""
    return name if name in methods else OWN.get(name, f"{name}, weights that exist")


def shown(value: float, metric: Metric) -> str:
    """Metres as they are, all else in percent."""
    return f"{value:.2f}" if metric == "rmse" else f"{100 * value:.1f}"


def signed(value: float, metric: Metric) -> str:
    """With its sign."""
    words = shown(abs(value), metric)
    sign = "" if not float(words) else "−" if value < 0 else "+"
    return f"{sign}{words}"


def points(gap: Interval) -> str:
    """`2.1 points (1.2 to 3.0) less than`, of errors in percent."""
    low, high = (gap.low, gap.high) if gap.mean >= 0 else (-gap.high, -gap.low)
    less = "more" if gap.mean >= 0 else "less"
    sure = "" if gap.sure else ": may be chance"
    ends = " to ".join(f"{100 * value:.1f}".replace("-", "−") for value in (low, high))
    return f"{abs(100 * gap.mean):.1f} points ({ends}{sure}) {less} than"
