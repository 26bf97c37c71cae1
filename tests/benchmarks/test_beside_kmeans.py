"""The benchmark of K-means beside others': what it times, and its table."""

from __future__ import annotations

import time

import pytest

from benchmarks.beside_kmeans import OURS, compare, lines, ours, scikit_learn
from benchmarks.scale import features


def test_ours_and_scikit_learn_reach_the_same_inertia_from_the_same_centroids() -> None:
    found = compare(features(2000).numpy(), 8, 5, 1, {OURS: ours, "scikit-learn": scikit_learn})
    assert found["inertia"]["scikit-learn"] == pytest.approx(0, abs=1e-4)
    assert min(found["seconds"].values()) > 0


def test_they_take_turns_and_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, called = [0.0], []
    costs = {OURS: [5.0, 2.0, 3.0], "b": [1.0, 4.0, 9.0]}

    def run(name: str):
        def job(*_: object) -> float:
            called.append(name)
            clock[0] += costs[name][called.count(name) - 1]
            return 10.0 if name == OURS else 11.0

        return job

    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    found = compare(features(20).numpy(), 2, 1, 3, {name: run(name) for name in costs})
    assert called == [OURS, "b"] * 3
    assert found["seconds"] == {OURS: 2.0, "b": 1.0}
    assert found["inertia"]["b"] == pytest.approx(0.1)


def test_the_table_compares_with_the_faster_of_the_others() -> None:
    seconds = {OURS: 0.2, "scikit-learn": 0.3, "faiss": 0.1}
    inertia = {OURS: 0.0, "scikit-learn": -2e-6, "faiss": 1e-6}
    last = list(lines([{"clusters": 1000, "steps": 3, "seconds": seconds, "inertia": inertia}]))[-1]
    assert last == "| 1,000 | 3 | 0.200 s | 0.300 s | 0.100 s | 0.50 | 2e-06 |"
