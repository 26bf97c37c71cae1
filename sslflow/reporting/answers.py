"""Which test images each run got right, and what that says of differences between the rows of the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from sslflow import paths
from sslflow.evaluation.intervals import Interval, crossed, of_share
from sslflow.runtime.files import read_csv

START = "start "
"""Before the name of weights that exist, in the key of their row."""
RETRIEVAL = ("map", "recall1", "recall5")
"""Metrics that are no share of right answers, but a mean over queries."""


class Answers:
    """What the runs on the `seeds` answered. `groups` int `(n,)`: that of each row of the data set; `fractions`: the
    shares of the labels, the main one first."""

    def __init__(self, seeds: Sequence[int], groups: np.ndarray, fractions: Sequence[float] = ()) -> None:
        self.seeds, self.groups = seeds, groups
        self.columns = {
            "linear": "predicted",
            "knn": "neighbours",
            **{metric: metric for metric in RETRIEVAL},
            **tuned_columns(fractions),
        }
        self._read = cache(self._read_right)

    def over(self, name: str, metric: str) -> Interval | None:
        """A row's accuracy, over its seeds and the test images; None where the answers aren't there."""
        found = self.of_seeds(name, metric)
        return of_share(found[1], self.groups[found[0]]) if found else None

    def of_seeds(self, name: str, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows of the test images, and which of them each seed got right, 1.0 or 0.0 `(seeds, n)`; None where the
        answers aren't there, or are about different images."""
        found = [one for seed in self.seeds if (one := self._read(name, seed, metric)) is not None]
        if not found or any(not np.array_equal(rows, found[0][0]) for rows, _ in found):
            return None
        return found[0][0], np.stack([right for _, right in found])

    def gap(self, name: str, other: str, metric: str) -> Interval | None:
        """By how much one row's accuracy is above another's, image by image on the seeds that both have."""
        found = self.differences(name, other, metric)
        return crossed(found[1], self.groups[found[0]]) if found else None

    def differences(self, name: str, other: str, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows of the test images, and by how much one row got each of them more right than another, on the seeds that
        both have, `(seeds, n)`; None as in `of_seeds`."""
        pairs = [
            (ours, theirs)
            for seed in self.seeds
            if (ours := self._read(name, seed, metric)) and (theirs := self._read(other, seed, metric))
        ]
        rows = [part[0] for pair in pairs for part in pair]
        if not rows or any(not np.array_equal(one, rows[0]) for one in rows):
            return None
        return rows[0], np.stack([ours[1] - theirs[1] for ours, theirs in pairs])

    def right(self, name: str, seed: int, metric: str) -> np.ndarray | None:
        """Whether a run got each of the test images right, 1.0 or 0.0 `(n,)`; None where its answers aren't there."""
        found = self._read(name, seed, metric)
        return None if found is None else found[1]

    def answered(self, name: str, seed: int, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows of the test images that a run was asked about, and as `right` for each; None where that isn't there."""
        return self._read(name, seed, metric)

    def _read_right(self, name: str, seed: int, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows of the test images, and 1.0 for each that is right, or what it finds as a query."""
        where = paths.tuned if metric.startswith("finetune") else paths.predictions
        file, column = where(name.removeprefix(START), seed), self.columns.get(metric, "")
        answers = read_csv(file) if file.exists() else []
        if not answers or column not in answers[0]:
            return None
        rows = np.array([int(one["row"]) for one in answers])
        if metric in RETRIEVAL:
            return rows, np.array([float(one[column]) for one in answers])
        return rows, np.array([float(one[column] == one["actual"]) for one in answers])


def fraction_name(fraction: float) -> str:
    """How the fine-tuning metrics name a labelled fraction: `finetune_10pct` for 0.1, `finetune_0.5pct` for 0.005."""
    return f"finetune_{100 * fraction:g}pct"


def tuned_columns(fractions: Sequence[float]) -> dict[str, str]:
    """Metric on the board → what stages call it: the first of the labelled `fractions` is `finetune` alone."""
    return {fraction_name(one) if number else "finetune": fraction_name(one) for number, one in enumerate(fractions)}
