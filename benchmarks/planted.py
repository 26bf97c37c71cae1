"""Faults planted into pseudo-labels, and what the audit finds of them: `python -m benchmarks.planted`.

Features of SimCLR's encoders of `benchmarks.pseudolabels`, K-means as its defaults are; three draws of each fault. A
cluster is merged with another, drawn at random or the nearest one; a cluster is split, at random or into the halves
that K-means finds; 5 % of the images get the number of another cluster; 5 % of the labels are changed; and, without a
fault, suspects found without any label are compared with what labels call wrong.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pseudolabels import SETS, trained
from benchmarks.tables import show
from sslflow import paths
from sslflow.clustering.kmeans import assign, kmeans
from sslflow.data.dataset import Dataset
from sslflow.evaluation.clustered import pseudolabels
from sslflow.evaluation.named import PseudoLabels, names_of, votes
from sslflow.features.store import FeatureStore
from sslflow.pseudolabels.audit import audit
from sslflow.pseudolabels.findings import AuditClusters, Found
from sslflow.settings.params import load

DRAWS = range(3)
SHARE = 0.05
ASKED = AuditClusters(rounds=2, sample=500)


def looked(dataset: Dataset, features: torch.Tensor, run: PseudoLabels, cluster: np.ndarray, clusters: int) -> Found:
    """What the audit finds in these cluster numbers."""
    return audit(dataset, features, [PseudoLabels(cluster, run.confidence)], clusters, load()["pseudolabel"], 0, ASKED)


def flagged(found: Found, *words: str) -> set[int]:
    """Clusters of which the audit says one of these."""
    return {line[0] for line in found.tables["clusters"] if any(word in line[-1] for word in words)}


def suspected(found: Found, *reasons: str) -> set[int]:
    """Rows that are suspected for one of the reasons."""
    return {line[0] for line in found.tables["suspects"] if any(reason in line[-1] for reason in reasons)}


def merges(
    dataset: Dataset, features: torch.Tensor, run: PseudoLabels, clusters: int, near: bool
) -> Iterator[tuple[set[int], set[int]]]:
    """The merged cluster, and those that are called two in one or aren't found again."""
    means = torch.stack([features[torch.from_numpy(run.cluster == one)].mean(dim=0) for one in range(clusters)])
    table = torch.cdist(means, means).fill_diagonal_(torch.inf)
    for draw in DRAWS:
        order = np.random.default_rng(draw).permutation(clusters)
        a, b = int(order[0]), int(table[order[0]].argmin()) if near else int(order[1])
        cluster = np.where(run.cluster == b, a, run.cluster)
        yield {a}, flagged(looked(dataset, features, run, cluster, clusters), "two in one", "not found again")


def splits(
    dataset: Dataset, features: torch.Tensor, run: PseudoLabels, clusters: int, halves: bool
) -> Iterator[tuple[set[int], set[int]]]:
    """Both parts of the split cluster, and those that are called the same as another."""
    for draw in DRAWS:
        numbers = np.random.default_rng(draw)
        a = int(numbers.integers(clusters))
        rows = np.flatnonzero(run.cluster == a)
        if halves:
            own = features[rows]
            part = assign(own, kmeans(own, draw, clusters=2).centroids)[0].numpy() == 0
        else:
            part = numbers.random(len(rows)) < 0.5
        cluster = run.cluster.copy()
        cluster[rows[part]] = clusters
        yield {a, clusters}, flagged(looked(dataset, features, run, cluster, clusters + 1), "the same")


def shuffled(dataset: Dataset, features: torch.Tensor, run: PseudoLabels, clusters: int) -> Iterator[Any]:
    """Rows with another cluster's number, and those that are nearer to another cluster."""
    for draw in DRAWS:
        numbers = np.random.default_rng(draw)
        rows = numbers.permutation(len(dataset))[: round(SHARE * len(dataset))]
        cluster = run.cluster.copy()
        cluster[rows] = (cluster[rows] + numbers.integers(1, clusters, len(rows))) % clusters
        yield set(rows.tolist()), suspected(looked(dataset, features, run, cluster, clusters), "nearer")


def relabelled(dataset: Dataset, features: torch.Tensor, run: PseudoLabels, clusters: int) -> Iterator[Any]:
    """Rows with a changed label, and those whose label is suspected."""
    for draw in DRAWS:
        numbers, changed = np.random.default_rng(draw), Dataset(dataset.folder)
        rows = numbers.permutation(len(dataset))[: round(SHARE * len(dataset))]
        labels, classes = dataset.labels.copy(), len(dataset.classes)
        labels[rows] = (labels[rows] + numbers.integers(1, classes, len(rows))) % classes
        changed.__dict__["labels"] = labels
        yield set(rows.tolist()), suspected(looked(changed, features, run, run.cluster, clusters), "its label")


def table(sets: list[str]) -> Iterator[str]:
    """Recall and precision of each fault."""
    yield "| set | planted | found | precision | flagged |"
    yield "|---" * 5 + "|"
    for data in sets:
        with contextlib.chdir(trained(data, "simclr", 0)):
            dataset, run = Dataset(), pseudolabels("simclr", 0, len(Dataset()))
            features = torch.from_numpy(np.array(FeatureStore(paths.features("simclr", 0)).array))
            features = torch.nn.functional.normalize(features, dim=1)
            clusters = int(run.cluster.max()) + 1
            given = (dataset, features, run, clusters)
            kinds = {
                "two clusters merged, at random": merges(*given, near=False),
                "two neighbours merged": merges(*given, near=True),
                "a cluster split at random": splits(*given, halves=False),
                "a cluster split into its halves": splits(*given, halves=True),
                "5 % with another cluster's number": shuffled(*given),
                "5 % of the labels changed": relabelled(*given),
                "pseudo-labels that are wrong": wrong(*given),
            }
            for name, kind in kinds.items():
                pairs = list(kind)
                planted, hits, called = (
                    sum(map(len, part)) for part in zip(*((p, p & f, f) for p, f in pairs), strict=True)
                )
                recall, precision = f"{100 * hits / planted:.0f} %", f"{100 * hits / max(1, called):.0f} %"
                yield f"| {data} | {name} | {recall} of {planted:,} | {precision} | {called:,} |"


def wrong(dataset: Dataset, features: torch.Tensor, run: PseudoLabels, clusters: int) -> Iterator[Any]:
    """Rows whose label is not the name of their cluster, and suspects that are found without labels."""
    rows = np.flatnonzero(dataset.labels >= 0)
    names = names_of(votes(run.cluster[rows], dataset.labels[rows], clusters, len(dataset.classes)))
    bad = rows[names[run.cluster[rows]] != dataset.labels[rows]]
    yield set(bad.tolist()), suspected(looked(*(dataset, features, run), run.cluster, clusters), "unsure", "unstable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["emoji", "fashion"], choices=SETS)
    parser.add_argument("--table", type=Path, help="write the table to this file, between its marks")
    asked = parser.parse_args()
    show(table(asked.sets), asked.table, "planted")


if __name__ == "__main__":
    main()
