"""pseudolabel METHOD SEED: clusters of a run's features, as labels for all images, and what the clusters look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from sslflow import paths
from sslflow.clustering.agreement import agreement
from sslflow.clustering.confidence import confidence
from sslflow.clustering.kmeans import Metric, assign
from sslflow.clustering.pseudo import fit
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TRAIN
from sslflow.drawing.contact_sheet import contact_sheet
from sslflow.drawing.stills import stills
from sslflow.features.store import FeatureStore
from sslflow.runtime.device import compute
from sslflow.runtime.distributed import gather_uneven, own_part, process_group, rank
from sslflow.runtime.files import replacing, write_csv, write_metrics
from sslflow.settings.params import read
from sslflow.stages.entry import run

BLOCK = 2**23
"""Numbers that are read from the disk at a time."""
SHOWN, NEAREST, LEAST_SURE, THUMBNAIL = 20, 10, 6, 56
"""The sheet: clusters, images of each by distance and by margin, and the pixels of an image, about."""


def schemas(method: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "pseudolabel": fit}


def main(method: str, seed: int) -> None:
    settings = read(schemas(method))
    device = compute(**settings["compute"])
    with process_group(device):
        _pseudolabel(method, seed, settings, device)


def _pseudolabel(method: str, seed: int, settings: dict[str, dict[str, Any]], device: torch.device) -> None:
    dataset, store = Dataset(), FeatureStore(paths.features(method, seed))
    if len(store.array) != len(dataset):
        raise ValueError(
            f"{paths.features(method, seed)} has {len(store.array)} rows for {len(dataset)} {dataset.format.unit}; "
            "run `dvc repro extract`"
        )
    rows = dataset.pretraining_rows
    fitted_rows = store.part(rows[own_part(len(rows))])
    classes = len(dataset.classes) if dataset.labelled else 0
    clustering, metric = fit(fitted_rows, seed, classes, device, **settings["pseudolabel"])
    cluster, distance, margin = assign_all(store, clustering.centroids, metric)
    if rank():
        return

    name, folder = paths.run_name(method, seed), paths.pseudolabels(method, seed)
    columns = {"row": np.arange(len(dataset)), "cluster": cluster, "distance": distance, "margin": margin}
    with replacing(folder / "labels.parquet") as temporary:
        pq.write_table(pa.table(columns), temporary)
    together = paths.clustering(method, seed)
    with replacing(together) as temporary:
        pq.write_table(
            pa.table(
                {"cluster": cluster, "confidence": confidence(*map(torch.from_numpy, (distance, margin))).numpy()}
            ),
            temporary,
        )
    with replacing(folder / "centroids.npy") as temporary, temporary.open("wb") as handle:
        np.save(handle, clustering.centroids.cpu().numpy())
    majority = majorities(dataset, cluster, len(clustering.centroids)) if classes else {}
    sizes = np.bincount(cluster, minlength=len(clustering.centroids))
    header = ["cluster", "size", "share"] + (["majority", "purity"] if classes else [])
    lines = [
        [number, size, round(size / len(dataset), 6), *majority.get(number, [])]
        for number, size in enumerate(sizes.tolist())
    ]
    write_csv(folder / "sizes.csv", header, lines)
    with replacing(folder / "clusters.png") as temporary:
        sheet_of(dataset, sizes, cluster, distance, margin, majority).save(temporary, format="PNG")

    metrics = {
        "clusters": len(sizes),
        "inertia": clustering.inertia,
        "size_min": int(sizes.min()),
        "size_max": int(sizes.max()),
        "reseeded": clustering.reseeded,
    }
    words = ""
    if classes:
        rows = labelled_rows(dataset)
        found = agreement(dataset.labels[rows], cluster[rows])
        metrics |= found
        words = f", NMI {found['nmi']:.3f} with the classes"
    write_metrics(paths.metrics("pseudolabel", name), metrics)
    print(
        f"pseudolabel {name}  {len(dataset)} {dataset.format.unit} in {len(sizes)} clusters of {sizes.min()} to "
        f"{sizes.max()}, {clustering.iterations} iterations{words}"
    )


def assign_all(store: FeatureStore, centroids: Tensor, metric: Metric) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cluster, distance and margin of every row, read from the disk a block at a time, of which each process looks at
    its part."""
    found = []
    step = max(1, BLOCK // store.dim)
    for start in range(0, len(store.array), step):
        rows = store.array[start : start + step]
        block = torch.from_numpy(np.array(rows[own_part(len(rows))]))
        found.append([gather_uneven(column).cpu().numpy() for column in assign(block, centroids, metric)])
    cluster, distance, margin = (np.concatenate(column) for column in zip(*found, strict=True))
    return cluster, distance, margin


def labelled_rows(dataset: Dataset) -> np.ndarray:
    """Training rows with a class: what clusters are compared with."""
    rows = dataset.rows(TRAIN)
    return rows[dataset.labels[rows] >= 0]


def majorities(dataset: Dataset, cluster: np.ndarray, clusters: int) -> dict[int, list[Any]]:
    """The commonest class of each cluster's labelled training rows and its share of them; empty words without any."""
    rows = labelled_rows(dataset)
    table = np.zeros((clusters, len(dataset.classes)), dtype=np.int64)
    np.add.at(table, (cluster[rows], dataset.labels[rows]), 1)
    return {
        number: [dataset.classes[counts.argmax()], round(float(counts.max() / counts.sum()), 6)]
        if counts.any()
        else ["", ""]
        for number, counts in enumerate(table)
    }


def sheet_of(
    dataset: Dataset,
    sizes: np.ndarray,
    cluster: np.ndarray,
    distance: np.ndarray,
    margin: np.ndarray,
    majority: Mapping[int, list[Any]],
) -> Image.Image:
    """A row for each of the largest clusters: the images nearest to its centroid, then the least sure of the others."""
    largest = np.argsort(-sizes, kind="stable")[:SHOWN].tolist()
    channels, size = stills(dataset, np.zeros(1, np.int64)).shape[1:3]
    shape = (len(largest), NEAREST + LEAST_SURE, channels, size, size)
    tiles = np.full(shape, 255, dtype=np.uint8)
    labels = []
    for place, number in enumerate(largest):
        rows = np.flatnonzero(cluster == number)
        rows = rows[np.argsort(distance[rows], kind="stable")]
        nearest, others = rows[:NEAREST], rows[NEAREST:]
        unsure = others[np.argsort(margin[others], kind="stable")][:LEAST_SURE]
        tiles[place, : len(nearest)] = stills(dataset, nearest)
        tiles[place, NEAREST : NEAREST + len(unsure)] = stills(dataset, unsure)
        word = majority[number] if number in majority and majority[number][0] else None
        labels.append(f"{number}: {sizes[number]}" + (f", {100 * word[1]:.0f} % {word[0]}" if word else ""))
    scale = max(1, THUMBNAIL // size)
    title = f"{NEAREST} {dataset.format.unit} nearest to the centroid, then the {LEAST_SURE} least sure"
    if len(largest) < len(sizes):
        title += f"; the {len(largest)} largest of {len(sizes)} clusters"
    return contact_sheet(tiles.reshape(-1, *shape[2:]), columns=shape[1], scale=scale, row_labels=labels, title=title)


if __name__ == "__main__":
    run(main, str, int)
