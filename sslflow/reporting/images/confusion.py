"""What the linear probe takes for what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslflow.runtime.files import read_csv

LARGEST = 24
"""A matrix of more classes is too wide to read; then only the most frequent mistakes are listed."""


@dataclass(frozen=True)
class Confusion:
    """Counts `(classes, classes)`, actual by predicted, and the names of the classes."""

    classes: list[str]
    counts: np.ndarray

    @property
    def shares(self) -> list[list[float]]:
        """Counts as shares of their row; a class that has no test image is a row of zeros."""
        return (self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)).tolist()

    @property
    def readable(self) -> bool:
        """Whether the whole matrix fits on a page."""
        return len(self.classes) <= LARGEST

    def mistakes(self, count: int = 12) -> list[tuple[str, str, int, float]]:
        """The most frequent confusions: actual, predicted, images, share of the actual class's images."""
        wrong = self.counts * (1 - np.eye(len(self.classes), dtype=self.counts.dtype))
        found = []
        for place in np.argsort(-wrong, axis=None, kind="stable")[:count]:
            actual, predicted = divmod(int(place), len(self.classes))
            if wrong[actual, predicted]:
                share = self.shares[actual][predicted]
                found.append((self.classes[actual], self.classes[predicted], int(wrong[actual, predicted]), share))
        return found


def confusion(files: Iterable[Path], classes: Sequence[str]) -> Confusion | None:
    """The sum over the prediction files given (columns row, actual, predicted); None where no image was predicted."""
    pairs = [pair for file in files if file.exists() for pair in _pairs(file)]
    if not pairs:
        return None
    seen = {name for pair in pairs for name in pair}
    names = [*classes, *sorted(seen.difference(classes))]
    number = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for actual, predicted in pairs:
        counts[number[actual], number[predicted]] += 1
    return Confusion(names, counts)


def _pairs(file: Path) -> list[tuple[str, str]]:
    return [(row["actual"], row["predicted"]) for row in read_csv(file, ["actual", "predicted"])]
