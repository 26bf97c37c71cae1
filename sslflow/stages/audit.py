"""audit: near copies, leakage, poor pictures, outliers and doubtful labels of what has been prepared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow import paths
from sslflow.audit.findings import COLUMNS, Audit, audit
from sslflow.data.dataset import Dataset
from sslflow.features.extract import extract
from sslflow.features.raw import raw, raw_name
from sslflow.networks.starts import BUILT_IN, RAW
from sslflow.networks.weights import started
from sslflow.runtime.device import compute
from sslflow.runtime.files import write_csv, write_json, write_metrics
from sslflow.settings.params import load, lookup, read
from sslflow.stages.entry import run

SECTIONS = ("audit", "compute", "extract", "run.controls")


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"audit": Audit, "compute": compute, "extract": extract}


def known_by(dataset: Dataset[Any]) -> str:
    """Whose features are compared: the first of `run.controls` that `starts` names, else the examples themselves. They
    need no training."""
    controls = lookup(load(), "run").get("controls") or ()
    named = (str(name) for name in controls if name not in BUILT_IN)
    return next((name for name in named if paths.start(name).exists()), raw_name(dataset))


def main() -> None:
    settings = read(schemas())
    device = compute(**settings["compute"])
    started_at = time.monotonic()
    dataset = Dataset[Any]()
    name = known_by(dataset)
    features = features_of(name, dataset, device, settings["extract"])
    found = audit(dataset, features, device, Audit(**settings["audit"]))
    for table, header in COLUMNS.items():
        write_csv(paths.AUDIT / f"{table}.csv", header, found.tables[table])
    write_json(paths.AUDIT / "audit.json", {"features": name, "said": found.said})
    write_metrics(paths.metrics("audit"), found.metrics)
    for line in found.said:
        print(f"audit  {line}")
    counts = {table: len(found.tables[table]) for table in ("copies", "looks", "outliers", "suspects")}
    print(
        f"audit  {found.metrics['images']} {dataset.format.unit} by {name}: {counts['copies']} pairs of near copies "
        f"({found.metrics.get('leaked_near', 0)} test {dataset.format.unit} have one among the others), "
        f"{counts['looks']} odd pictures, {counts['outliers']} outliers, {counts['suspects']} doubtful labels; "
        f"{time.monotonic() - started_at:.0f} s"
    )


def features_of(
    name: str, dataset: Dataset[Any], device: torch.device, settings: dict[str, Any]
) -> Callable[[np.ndarray], Tensor]:
    """Rows to features `(rows, dim)`: of the weights of that name in `starts`, or the examples themselves."""
    if name in RAW:
        return lambda rows: raw(dataset, rows, device)
    encoder = started(name, dataset.format)
    return lambda rows: torch.from_numpy(extract(encoder, dataset, rows, device, **settings))


if __name__ == "__main__":
    run(main)
