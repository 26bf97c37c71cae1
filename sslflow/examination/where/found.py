"""What runs predicted on the annotated test images, read from what the stages wrote, as scores to compare."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import VolumeFormat
from sslflow.data.splits import TEST
from sslflow.dense.average_precision import Detections, average_precision, matched
from sslflow.dense.protocols import PROTOCOLS
from sslflow.evaluation.intervals import Interval
from sslflow.examination.where.gaps import Score, gap, mean_iou, over, remembered
from sslflow.runtime.about import says_about
from sslflow.runtime.files import read_json
from sslflow.runtime.tables import read_parquet

Metric = Literal["miou", "map", "map50"]
_MEASURED = re.compile(r"(frozen|tuned)_map_([0-9.e-]+)pct")
PIXELS = ("intersection", "predicted", "actual")


class Way(NamedTuple):
    """How a row was trained: by a protocol, on a share of the annotated images to train on."""

    protocol: str
    fraction: float


class Found:
    """Of the runs on the `seeds`. What is about other images than the annotated test images, all of them, is left out:
    `others` says of how many seeds."""

    def __init__(self, dataset: Dataset, seeds: Sequence[int], root: Path = Path()) -> None:
        """`root`: the project's folder."""
        self.dataset, self.seeds, self.root = dataset, seeds, root
        self.counts = cache(self._counts)
        self.detections = cache(self._detections)
        self._tables = cache(self._table)
        self.scores = cache(self._scores)
        self._both = cache(self._precisions)

    def ways(self, name: str, metric: Metric) -> list[Way]:
        """How a row was trained, for a metric: the smallest fraction first, `PROTOCOLS` in their order."""
        read = self.counts if metric == "miou" else self.detections
        found = {way for seed in self.seeds for way in read(name, seed)}
        return sorted(found, key=lambda way: (way.fraction, PROTOCOLS.index(way.protocol)))

    def seeds_of(self, name: str, metric: Metric) -> int:
        """How many of the seeds a row has been made with."""
        read = self.counts if metric == "miou" else self.detections
        return sum(bool(read(name, seed)) for seed in self.seeds)

    def others(self, name: str, metric: Metric) -> int:
        """Of how many of the seeds what a row predicted is about other test images."""
        return sum(self._tables(name, seed, metric)[1] for seed in self.seeds)

    def rows(self, metric: Metric) -> np.ndarray:
        """Rows of the annotated test images."""
        kind = "mask" if metric == "miou" else "boxes"
        return self.dataset.annotated_rows(TEST, kind) if self.dataset.truth else np.empty(0, np.int64)

    def groups(self, metric: Metric) -> np.ndarray:
        """Their groups."""
        return self.dataset.groups[self.rows(metric)]

    def values(self, name: str, metric: Metric, way: Way) -> list[float]:
        """A row's score of each of the seeds that have it."""
        once = np.ones((1, len(self.rows(metric))))
        return [float(score(once)[0]) for score in self.scores(name, metric, way).values()]

    def over(self, name: str, metric: Metric, way: Way) -> Interval | None:
        """A row's score, over its seeds and the test images; None where there is none."""
        found = list(self.scores(name, metric, way).values())
        return over(found, self.groups(metric)) if found else None

    def gap(self, one: tuple[str, Way], other: tuple[str, Way], metric: Metric) -> Interval | None:
        """By how much one row is above another, on the seeds that both have; None where there are none."""
        ours, theirs = self.scores(one[0], metric, one[1]), self.scores(other[0], metric, other[1])
        seeds = [seed for seed in ours if seed in theirs]
        if not seeds:
            return None
        return gap([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds], self.groups(metric))

    def pairs(self, one: tuple[str, Way], other: tuple[str, Way], metric: Metric) -> int:
        """On how many seeds that gap rests."""
        return len(self.scores(one[0], metric, one[1]).keys() & self.scores(other[0], metric, other[1]).keys())

    def _scores(self, name: str, metric: Metric, way: Way) -> dict[int, Score]:
        """Seed → score, of the seeds that have it."""
        if metric == "miou":
            read = {seed: self.counts(name, seed).get(way) for seed in self.seeds}
            return {seed: remembered(mean_iou(one)) for seed, one in read.items() if one is not None}
        both = {seed: self._both(name, seed, way) for seed in self.seeds if way in self.detections(name, seed)}
        place = ("map", "map50").index(metric)
        return {seed: lambda times, score=score: score(times)[place] for seed, score in both.items()}

    def _precisions(self, name: str, seed: int, way: Way) -> Score:
        """mAP and mAP50, `(2, draws)`."""
        truth = self.dataset.truth
        assert truth
        of = matched(truth.things(self.rows("map")), self.detections(name, seed)[way], len(truth.thing_classes))
        return remembered(lambda times: np.stack(average_precision(of, times)))

    def _counts(self, name: str, seed: int) -> dict[Way, np.ndarray]:
        """Pixels of each test image and class, int64 `(n, classes, 3)`, as `class_ious` takes them."""
        (table, _), rows = self._tables(name, seed, "miou"), self.rows("miou")
        if table is None or not self.dataset.truth:
            return {}
        columns = {column: table[column].to_numpy() for column in ("row", "class", *PIXELS)}
        shape = (len(rows), len(self.dataset.truth.pixel_classes), len(PIXELS))
        found = {way: np.zeros(shape, np.int64) for way, _ in _ways(table)}
        for way, mask in _ways(table):
            places = np.searchsorted(rows, columns["row"][mask]), columns["class"][mask]
            found[way][places] = np.stack([columns[column][mask] for column in PIXELS], axis=1)
        return found

    def _detections(self, name: str, seed: int) -> dict[Way, Detections]:
        """What was found in the test images; `image` is the place among `rows`."""
        (table, _), rows = self._tables(name, seed, "map"), self.rows("map")
        if table is None:
            return {}
        image, labels = np.searchsorted(rows, table["row"].to_numpy()), table["label"].to_numpy().astype(np.int64)
        scores = table["score"].to_numpy()
        boxes = np.stack([table[side].to_numpy() for side in ("left", "top", "right", "bottom")], axis=1)
        nothing = np.zeros(len(labels), bool)
        masks = dict.fromkeys(self._measured(name, seed), nothing) | dict(_ways(table))
        return {way: Detections(image[mask], labels[mask], scores[mask], boxes[mask]) for way, mask in masks.items()}

    def _table(self, name: str, seed: int, metric: Metric) -> tuple[pa.Table | None, bool]:
        """What a run wrote, and whether that was left out: it is about other test images, or other classes."""
        file, column, classes = self._file(name, seed, metric)
        if not file.exists() or not self.dataset.truth:
            return None, False
        table, rows = read_parquet(file), self.rows(metric)
        told, own = says_about(table, rows), table["row"].to_numpy()
        if told is None:  # of pixels every image has a line, of boxes those in which something was found
            told = (
                np.isin(own, rows).all() if metric != "miou" else not len(own) or np.array_equal(np.unique(own), rows)
            )
        known = bool(told) and table[column].to_numpy().max(initial=-1) < classes
        return (table, False) if known else (None, True)

    def _file(self, name: str, seed: int, metric: Metric) -> tuple[Path, str, int]:
        """Where a run's predictions are, the column with classes, and how many of these there are."""
        truth = self.dataset.truth
        if metric == "miou":
            return (
                self.root / self.segmented(name, seed) / "counts.parquet",
                "class",
                len(truth.pixel_classes) if truth else 0,
            )
        file = paths.detected(name, seed) / "detections.parquet"
        return self.root / file, "label", len(truth.thing_classes) if truth else 0

    def segmented(self, name: str, seed: int) -> Path:
        """The folder with what a run took the pixels of the test images for, or the voxels of the test blocks."""
        return (paths.segmented_volumes if self.volumes else paths.segmented)(name, seed)

    @property
    def volumes(self) -> bool:
        """Whether it is about blocks of volumes, and masks tell of their voxels."""
        return self.dataset.format.kind == VolumeFormat.kind

    def _measured(self, name: str, seed: int) -> list[Way]:
        """The ways in which a detector was trained, by its metrics: one that finds nothing has no line in the table."""
        file = self.root / paths.metrics("detect", paths.run_name(name, seed))
        keys = map(_MEASURED.fullmatch, read_json(file) if file.exists() else ())
        return [Way(key[1], float(f"{float(key[2]) / 100:.6g}")) for key in keys if key]


def _ways(table: pa.Table) -> Iterator[tuple[Way, np.ndarray]]:
    """Each way in which a run was trained, and which lines of its table are about it, bool `(lines,)`."""
    protocols = np.array(table["protocol"].to_pylist(), dtype=str)
    fractions = table["fraction"].to_numpy()
    for protocol, fraction in sorted(set(zip(protocols.tolist(), fractions.tolist(), strict=True))):
        way = Way(protocol, float(f"{fraction:.6g}"))
        yield way, (protocols == protocol) & (fractions == fraction)
