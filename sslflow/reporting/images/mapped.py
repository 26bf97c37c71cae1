"""What the map of the page holds: places of each method's features, and by what images are coloured and told of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.reporting.images import atlas, audited
from sslflow.runtime.files import read_csv
from sslflow.runtime.tables import read_parquet

SUSPECTED = ("copy between training and test", "doubtful label", "poor picture", "outlier", "other near copy")
"""What the audit may hold against an image, the worst first: one of them is its colour."""


def section(
    dataset: Dataset, rows: np.ndarray, features: Mapping[str, np.ndarray], first: int, best: str, seed: int
) -> dict[str, Any] | None:
    """The sprite of the images in `rows`, and what the map's script draws, the `best` method first; `features` by
    method are those of the run's `first` seed. None where there are none."""
    if not features or not len(rows):
        return None
    methods = [
        {
            "method": method,
            "xy": atlas.layout(atlas.embed(np.asarray(features[method][rows]), seed)),
            "clusters": _clusters(method, first, rows),
            "answers": _answers(method, first, rows, dataset.classes),
        }
        for method in sorted(features, key=lambda name: name != best)
    ]
    picture, columns, cell = atlas.thumbnails(dataset, rows)
    return {
        "sprite": picture,
        "data": {
            "methods": methods,
            "columns": columns,
            "cell": cell,
            "classes": dataset.classes,
            "suspected": SUSPECTED,
            "suspicions": _suspicions(dataset, rows),
            **atlas.groups(dataset, rows),
        },
    }


def _clusters(method: str, seed: int, rows: np.ndarray) -> list[int]:
    file = paths.pseudolabels(method, seed) / "labels.parquet"
    if not file.exists():
        return []
    table = read_parquet(file, ["row", "cluster"])
    return atlas.clusters(table["row"].to_numpy(), table["cluster"].to_numpy(), rows)


def _answers(method: str, seed: int, rows: np.ndarray, classes: list[str]) -> list[int]:
    """The class that the linear probe takes each image for, -1 for those that it wasn't asked about; none where it has
    not been asked at all."""
    file = paths.predictions(method, seed)
    if not file.exists():
        return []
    number = {name: place for place, name in enumerate(classes)}
    told = {int(one["row"]): number.get(one["predicted"], -1) for one in read_csv(file, ["row", "predicted"])}
    return [told.get(row, -1) for row in rows.tolist()] if told else []


def _suspicions(dataset: Dataset, rows: np.ndarray) -> list[int]:
    """The place in `SUSPECTED` of what the audit holds against each image, -1 for nothing; none without an audit."""
    tables = audited.tables(dataset)
    if tables is None:
        return []
    leaks = [line for line in tables["copies"] if line["leak"] == "yes"]
    kinds = (leaks, tables["suspects"], tables["looks"], tables["outliers"], tables["copies"])
    found: dict[int, int] = {}
    for place, lines in enumerate(kinds):
        for line in lines:
            for row in (line["row"], line.get("other_row", line["row"])):
                found.setdefault(int(row), place)
    return [found.get(row, -1) for row in rows.tolist()]
