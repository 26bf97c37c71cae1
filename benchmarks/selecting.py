"""Labels of images that were selected beside labels of images drawn at random: `python -m benchmarks.selecting`.

Features of weights that exist, frozen; a linear classifier on the few labels, as the stage `probe` fits it. Classes are
looked at by nobody before the images are chosen: a draw at random may miss some, as a selection may.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept import make
from benchmarks.starts import SETS, SIDES, WEIGHTS
from benchmarks.tables import show
from sslflow.clustering.choose import covering, typical
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.intervals import crossed
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.features.extract import extract
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.starts import Start
from sslflow.networks.weights import given
from sslflow.runtime.rng import permutation

WORK = Path("work/benchmarks/selecting")
DRAWS = range(5)
WAYS: dict[str, Callable[[torch.Tensor, int, int], torch.Tensor]] = {
    "at random": lambda features, budget, draw: permutation(len(features), draw, "random labels")[:budget],
    "typical": typical,
    "covering": lambda features, budget, draw: covering(_rotated(features, draw), budget),
}


def _rotated(features: torch.Tensor, draw: int) -> torch.Tensor:
    """Nine tenths of the rows, others in each draw, in place of the rest: coverage knows no chance of its own."""
    left_out = permutation(len(features), draw, "left out")[: len(features) // 10]
    kept = features.clone()
    kept[left_out] = features[0]
    return kept


def table(sets: list[str]) -> Iterator[str]:
    """A table for each set: accuracy, and points above images at random with the 95 % interval."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    yield f"{machine}. {WEIGHTS}, frozen; {len(DRAWS)} draws."
    for data in sets:
        dataset = _prepared(data)
        train, test = (dataset.labelled_rows(split) for split in (TRAIN, TEST))
        x_train, x_test = _features(data, dataset, train), _features(data, dataset, test)
        y_train, y_test = (torch.from_numpy(dataset.labels[rows]) for rows in (train, test))
        classes, groups = len(dataset.classes), dataset.groups[test]
        yield from ("", f"### {data}, {classes} classes, {len(train):,} images to choose from", "")
        yield "| labels | | classes found | linear | above random | kNN | above random |"
        yield "|---|---|---|---|---|---|---|"
        for budget in (classes, 2 * classes, round(0.01 * len(train))):
            right: dict[tuple[str, str], np.ndarray] = {}
            for way, choose in WAYS.items():
                found: dict[str, list[Any]] = {"linear": [], "kNN": [], "classes": []}
                for draw in DRAWS:
                    rows = choose(x_train, budget, draw)
                    x_few, y_few = x_train[rows], y_train[rows]
                    fitted = fit_linear(x_few, y_few, classes, draw)
                    found["linear"].append(fitted.predict(x_test) == y_test)
                    found["kNN"].append(knn_predict(x_few, y_few, x_test, classes) == y_test)
                    found["classes"].append(len(y_few.unique()))
                cells = [str(budget), way, f"{np.mean(found['classes']):.1f}"]
                for probe in ("linear", "kNN"):
                    own = right[way, probe] = np.stack([one.numpy() for one in found[probe]]).astype(float)
                    cells.append(f"{100 * own.mean():.1f} ± {100 * own.mean(axis=1).std(ddof=1):.1f}")
                    told = crossed(own - right["at random", probe], groups)
                    above = f"{100 * told.mean:+.1f} ({100 * told.low:+.1f} to {100 * told.high:+.1f})"
                    cells.append("" if way == "at random" else above)
                yield f"| {' | '.join(cells)} |"


def _prepared(data: str) -> Dataset:
    folder = WORK / data
    make(folder, SETS[data], ("data", "ingest"), lambda: prepare(folder, print, **SETS[data]))
    return Dataset(folder)


def _features(data: str, dataset: Dataset, rows: np.ndarray) -> torch.Tensor:
    encoder = given(Start(weights=WEIGHTS, side=SIDES[data]), dataset.format)
    return torch.from_numpy(extract(encoder, dataset, rows, torch.device("cpu")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    asked = parser.parse_args()
    show(table(asked.sets), asked.table, "selecting")


if __name__ == "__main__":
    main()
