"""K-means beside scikit-learn's and faiss's (`pip install scikit-learn faiss-cpu`): `python -m benchmarks.beside_kmeans
--table docs/scale.md`.

Lloyd's steps from the same centroids, on one thread, from the table of features to the inertia. The three take turns;
the least of several rounds counts, in seconds of the processor.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.scale import DIM, features
from benchmarks.tables import show
from sslflow.clustering.kmeans import _lloyd
from sslflow.clustering.points import Points

ROWS, ROUNDS = 60_000, 7
STEPS = {10: 10, 100: 10, 1000: 3}
"""Clusters, and steps with so many."""
OURS = "ours"
Run = Callable[[np.ndarray, np.ndarray, int], float]
"""From a table of features, centroids to start from, and a number of steps, to the inertia."""


def ours(table: np.ndarray, start: np.ndarray, steps: int) -> float:
    points = Points(torch.from_numpy(table), "euclidean")
    points.hold()
    return _lloyd(points, torch.from_numpy(start) - points.centre, steps, -1.0)[1]


def scikit_learn(table: np.ndarray, start: np.ndarray, steps: int) -> float:
    from sklearn.cluster import KMeans

    settings: dict[str, Any] = {"init": start, "n_init": 1, "max_iter": steps, "tol": 0, "algorithm": "lloyd"}
    with warnings.catch_warnings(action="ignore"):  # that it has not converged
        found: Any = KMeans(len(start), **settings).fit(table)
    return float(found.inertia_)


def by_faiss(table: np.ndarray, start: np.ndarray, steps: int) -> float:
    import faiss  # pyright: ignore[reportMissingImports]

    faiss.omp_set_num_threads(1)
    found = faiss.Kmeans(
        table.shape[1], len(start), niter=steps, max_points_per_centroid=10**9, min_points_per_centroid=1
    )
    found.train(table, init_centroids=start)
    return float(found.index.search(table, 1)[0].sum())


RUNS: dict[str, Run] = {OURS: ours, "scikit-learn": scikit_learn, "faiss": by_faiss}


def compare(table: np.ndarray, clusters: int, steps: int, rounds: int, runs: Mapping[str, Run] = RUNS) -> dict:
    """`seconds` by name, the least of the rounds, and by how much the `inertia` differs from ours, as a share of it."""
    start = table[np.random.default_rng(1).choice(len(table), clusters, replace=False)].copy()
    times: dict[str, list[float]] = {name: [] for name in runs}
    inertia: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            inertia[name] = run(table, start, steps)
            times[name].append(time.process_time() - began)
    return {
        "clusters": clusters,
        "steps": steps,
        "seconds": {name: min(own) for name, own in times.items()},
        "inertia": {name: value / inertia[OURS] - 1 for name, value in inertia.items()},
    }


def lines(results: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The table, as docs/scale.md has it."""
    yield f"| clusters | steps | {' | '.join(RUNS)} | the faster, to ours | inertia differs by |"
    yield "|---|---|" + "---|" * (len(RUNS) + 2)
    for one in results:
        seconds = one["seconds"]
        faster = min(value for name, value in seconds.items() if name != OURS)
        cells = [f"{seconds[name]:.3f} s" for name in RUNS]
        differs = max(abs(value) for value in one["inertia"].values())
        cells += [f"{faster / seconds[OURS]:.2f}", f"{differs:.0e}"]
        yield f"| {one['clusters']:,} | {one['steps']} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="a guide with marks, to put the table into")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = features(ROWS).numpy()
    results = [compare(table, clusters, steps, arguments.rounds) for clusters, steps in STEPS.items()]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "scikit-learn", "faiss-cpu")
    )
    note = f"{ROWS:,} × {DIM}, the least of {arguments.rounds} rounds; {versions}."
    show([*lines(results), "", note], arguments.table, "beside K-means")


if __name__ == "__main__":
    main()
