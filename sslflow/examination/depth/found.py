"""How far off runs were on the test images with a depth map, read from what the stage wrote, as errors to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.evaluation.intervals import Interval, resampled
from sslflow.runtime.about import says_about
from sslflow.runtime.tables import read_parquet

Metric = Literal["abs_rel", "rmse", "within", "silog"]
METRICS: Mapping[Metric, tuple[str, bool]] = {
    "abs_rel": ("abs_rel", False),
    "rmse": ("squared", True),
    "within": ("within", False),
    "silog": ("log_variance", True),
}
"""Of each the column with an image's own value, and whether the root of their mean is taken."""
ORDER = ("mean", "frozen", "tuned")
"""Of the ways to make a map."""


class Way(NamedTuple):
    """How a row was trained: by a protocol, on a share of the images to train on that have a depth map."""

    protocol: str
    fraction: float


class Found:
    """Of the runs on the `seeds`. What is about other test images than those with a depth map, all of them, is left
    out: `others` says of how many seeds."""

    def __init__(self, dataset: Dataset, seeds: Sequence[int], root: Path = Path()) -> None:
        """`root`: the project's folder."""
        self.dataset, self.seeds, self.root = dataset, seeds, root
        self.rows = dataset.annotated_rows(TEST, "depth")
        self.groups = dataset.groups[self.rows]
        self._tables = cache(self._table)
        self.over = cache(self._over)
        self.gap = cache(self._gap)

    def ways(self, name: str) -> list[Way]:
        """How a row was trained: the smallest fraction first."""
        found = {way for seed in self.seeds for way in self._tables(name, seed)[0]}
        return sorted(found, key=lambda way: (way.fraction, ORDER.index(way.protocol)))

    def seeds_of(self, name: str) -> int:
        """How many of the seeds a row has been made with."""
        return sum(bool(self._tables(name, seed)[0]) for seed in self.seeds)

    def others(self, name: str) -> int:
        """Of how many of the seeds what a row predicted is about other test images."""
        return sum(self._tables(name, seed)[1] for seed in self.seeds)

    def images(self, name: str, seed: int, metric: Metric, way: Way) -> np.ndarray | None:
        """The value of each test image, `(n,)`; None where it hasn't been made."""
        table = self._tables(name, seed)[0].get(way)
        return None if table is None else table[METRICS[metric][0]]

    def _over(self, name: str, metric: Metric, way: Way) -> Interval | None:
        """A row's error, over its seeds and the test images; None where there is none."""
        every = [one for seed in self.seeds if (one := self.images(name, seed, metric, way)) is not None]
        return resampled(lambda times: _errors(every, metric, times), self.groups) if every else None

    def _gap(self, one: tuple[str, Way], other: tuple[str, Way], metric: Metric) -> Interval | None:
        """By how much the value of one row is above that of another, on the seeds that both have; None where there are
        none."""
        pairs = [
            (ours, theirs)
            for seed in self.seeds
            if (ours := self.images(one[0], seed, metric, one[1])) is not None
            and (theirs := self.images(other[0], seed, metric, other[1])) is not None
        ]
        if not pairs:
            return None
        first, second = zip(*pairs, strict=True)

        def differences(times: np.ndarray) -> np.ndarray:
            return _errors(first, metric, times) - _errors(second, metric, times)

        return resampled(differences, self.groups)

    def _table(self, name: str, seed: int) -> tuple[dict[Way, dict[str, np.ndarray]], bool]:
        """What a run wrote, by the way it was trained, in the order of `rows`; and whether it was left out."""
        file = self.root / paths.depths(name, seed) / "errors.parquet"
        if not file.exists():
            return {}, False
        table = read_parquet(file)
        if not len(table):
            return {}, False
        if says_about(table, self.rows) is False:
            return {}, True
        return {way: own for way, own in _by_way(table).items() if len(own["row"]) == len(self.rows)}, False


def _by_way(table: pa.Table) -> dict[Way, dict[str, np.ndarray]]:
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "protocol"}
    protocols = np.array(table["protocol"].to_pylist(), dtype=str)
    found = {}
    for protocol, fraction in sorted(set(zip(protocols.tolist(), columns["fraction"].tolist(), strict=True))):
        here = np.flatnonzero((protocols == protocol) & (columns["fraction"] == fraction))
        here = here[np.argsort(columns["row"][here], kind="stable")]
        found[Way(protocol, float(f"{fraction:.6g}"))] = {name: values[here] for name, values in columns.items()}
    return found


def _errors(every: Sequence[np.ndarray], metric: Metric, times: np.ndarray) -> np.ndarray:
    """A value of each seed, `(draws, seeds)`, of images that count so often, `(draws, n)`."""
    means = np.stack([times @ one / times.sum(axis=1) for one in every], axis=1)
    return np.sqrt(means) if METRICS[metric][1] else means
