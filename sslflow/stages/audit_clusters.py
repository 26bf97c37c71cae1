"""audit_clusters METHOD: how stable and how sure a method's pseudo-labels are, over its seeds; which look wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from sslflow import paths
from sslflow.clustering.pseudo import fit
from sslflow.data.dataset import Dataset
from sslflow.drawing.contact_sheet import contact_sheet
from sslflow.drawing.stills import stills
from sslflow.evaluation.clustered import pseudolabels
from sslflow.evaluation.named import PseudoLabels
from sslflow.features.store import FeatureStore
from sslflow.pseudolabels.audit import audit
from sslflow.pseudolabels.findings import COLUMNS, AuditClusters, Found
from sslflow.runtime.device import compute
from sslflow.runtime.files import replacing, write_csv, write_json, write_metrics
from sslflow.settings.params import load, lookup, read
from sslflow.stages.entry import run

SECTIONS = ("audit_clusters", "compute", "pseudolabel", "run.seeds")
SHOWN, TYPICAL, DOUBTFUL, THUMBNAIL = 20, 4, 10, 56
"""The sheet: clusters, their most typical images and the first of their suspects, and the pixels of an image, about."""


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"audit_clusters": AuditClusters, "compute": compute, "pseudolabel": fit}


def main(method: str) -> None:
    settings = read(schemas())
    device = compute(**settings["compute"])
    began = time.monotonic()
    dataset = Dataset()
    first, *others = lookup(load(), "run")["seeds"]
    store = FeatureStore(paths.features(method, first))
    runs = [pseudolabels(method, seed, len(dataset)) for seed in (first, *others)]
    if len(store.array) != len(dataset):
        raise ValueError(
            f"{paths.features(method, first)} has {len(store.array)} rows for {len(dataset)} {dataset.format.unit}; "
            "run `dvc repro extract`"
        )
    clusters = len(np.load(paths.pseudolabels(method, first) / "centroids.npy", mmap_mode="r"))
    features = torch.from_numpy(np.array(store.array)).to(device)
    found = audit(
        dataset, features, runs, clusters, settings["pseudolabel"], first, AuditClusters(**settings["audit_clusters"])
    )
    folder = paths.clusters(method)
    for table, header in COLUMNS.items():
        write_csv(folder / f"{table}.csv", header, found.tables[table])
    write_json(folder / "audit.json", {"said": found.said, "suggestion": found.suggestion, "seed": first})
    with replacing(folder / "suspects.png") as temporary:
        sheet_of(dataset, runs[0], clusters, found).save(temporary, format="PNG")
    write_metrics(paths.metrics("audit_clusters", method), found.metrics)
    for line in (*found.said, found.suggestion):
        print(f"audit_clusters {method}  {line}")
    again = found.metrics.get("agreed_over_rounds")
    print(
        f"audit_clusters {method}  {clusters} clusters"
        + (
            f", {100 * again:.0f} % of the {dataset.format.unit} in the same one in other rounds"
            if again is not None
            else ""
        )
        + f", {len(found.tables['suspects'])} suspects; {time.monotonic() - began:.0f} s"
    )


def sheet_of(dataset: Dataset, run: PseudoLabels, clusters: int, found: Found) -> Image.Image:
    """A row for each of the clusters with the most suspects: its most typical images, a gap, the first of its
    suspects."""
    suspects: dict[int, list[int]] = {}
    for line in found.tables["suspects"]:
        suspects.setdefault(line[4], []).append(line[0])
    numbers = sorted(suspects, key=lambda number: -len(suspects[number]))[:SHOWN]
    channels, size = stills(dataset, np.zeros(1, np.int64)).shape[1:3]
    tiles = np.full((max(1, len(numbers)), TYPICAL + 1 + DOUBTFUL, channels, size, size), 255, dtype=np.uint8)
    labels = []
    for place, number in enumerate(numbers):
        own = np.flatnonzero(run.cluster == number)
        typical = own[np.argsort(-run.confidence[own], kind="stable")][:TYPICAL]
        doubtful = np.array(suspects[number][:DOUBTFUL])
        tiles[place, : len(typical)] = stills(dataset, typical)
        tiles[place, TYPICAL + 1 : TYPICAL + 1 + len(doubtful)] = stills(dataset, doubtful)
        labels.append(f"{number}: {len(suspects[number])} of {len(own)}")
    title = (
        f"the {TYPICAL} surest {dataset.format.unit} of a cluster, and its first suspects" if numbers else "no suspects"
    )
    if len(numbers) < len(suspects):
        title += f"; {len(numbers)} of {clusters} clusters"
    scale = max(1, THUMBNAIL // size)
    return contact_sheet(
        tiles.reshape(-1, *tiles.shape[2:]), columns=tiles.shape[1], scale=scale, row_labels=labels, title=title
    )


if __name__ == "__main__":
    run(main, str)
