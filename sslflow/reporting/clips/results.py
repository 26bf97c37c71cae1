"""What each method for clips reached: its scores over the seeds, beside chance and what must not tell pairs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from sslflow import paths
from sslflow.runtime.files import read_json, reading
from sslflow.runtime.tables import read_parquet
from sslflow.settings.params import lookup

DEPTHS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mrr": "MRR", "ndcg30": "nDCG@30"}
WANTED = {"own": "the other half of its own moment", "class": "anything of its class"}
POINTED = {"hits": "hits", "centre": "centre", "silence": "silence", "noise": "noise", "random": "chance"}
PROBED = {
    "picture": "frames",
    "picture_random": "frames, random",
    "picture_start": "frames, as started",
    "sound": "sounds",
    "sound_random": "sounds, random",
}
STAGES = ("pretrain_clips", "examine")
Kind = Literal["source", "moment", "own"]
"""What a wrong pair is: the sound of another source, or of another moment of the same clip; or a task of its own."""


@dataclass(frozen=True)
class Estimate:
    """A share over the seeds: means of it and of the ends of its 95 % intervals, which are never too narrow for the
    mean, since the seeds are examined on the same sources."""

    mean: float
    low: float
    high: float
    spread: float
    """Standard deviation over the seeds; 0 for one."""

    def above(self, chance: float) -> bool:
        """Whether even the interval's lower end is above chance."""
        return self.low > chance


@dataclass(frozen=True)
class Task:
    """One thing that a method was asked on the test clips."""

    method: str
    kind: Kind
    accuracy: Estimate
    chance: float
    other_class: float | None
    """Accuracy where a wrong sound is of another class; None without labels."""
    conditions: Estimate | None
    """Accuracy by how pictures and sounds were recorded alone; None for a task of its own."""

    @property
    def learned(self) -> bool:
        """Whether it is above chance by more than chance."""
        return self.accuracy.above(self.chance)

    @property
    def shortcut(self) -> bool:
        """Whether pairs can be told by how they were recorded."""
        return self.conditions is not None and self.conditions.above(0.5)

    @property
    def doubtful(self) -> bool:
        """Whether nothing but that may have been learned."""
        return self.shortcut and self.conditions is not None and self.conditions.high >= self.accuracy.low


class Correspondences:
    """The runs on clips that the settings ask for, as far as they are on the disk."""

    def __init__(self, params: Mapping[str, Any], seeds: Sequence[int]) -> None:
        self.params, self.seeds = params, seeds
        self.asked = lookup(params, "run").get("clip_methods") or ()
        self.methods = [name for name in self.asked if self._of(name)]

    def _of(self, method: str) -> list[dict[str, float]]:
        return [found for (name, _), found in self._metrics.items() if name == method]

    @cached_property
    def _metrics(self) -> dict[tuple[str, int], dict[str, float]]:
        found = {}
        for method in self.asked:
            for seed in self.seeds:
                run = paths.run_name(method, seed)
                trained, examined = (paths.metrics(stage, run) for stage in STAGES)
                if examined.exists():
                    clips = read_json(trained) if trained.exists() else {}
                    found[method, seed] = read_json(examined) | {
                        name: clips[name] for name in ("clips",) if name in clips
                    }
        return found

    def metrics(self, method: str, seed: int) -> dict[str, float]:
        """All scores of one run; none where it has not run."""
        return self._metrics.get((method, seed), {})

    def table(self, method: str, seed: int, name: str) -> Path:
        """A file of one run: `decisions`, `source_decisions`, `retrieval`; it may be missing."""
        return paths.examined(method, seed) / f"{name}.parquet"

    def any(self, method: str) -> dict[str, float]:
        """All scores of the first seed that has run."""
        return next(iter(self._of(method)), {})

    @property
    def durations(self) -> list[tuple[str, str, float]]:
        """Stage, run and seconds."""
        runs = [(stage, paths.run_name(*run)) for stage in STAGES for run in self._metrics]
        files = [(stage, run, paths.metrics(stage, run)) for stage, run in runs]
        found = [(stage, run, read_json(file)) for stage, run, file in files if file.exists()]
        return [(stage, run, metrics["seconds"]) for stage, run, metrics in found if "seconds" in metrics]

    def mean(self, method: str, name: str) -> float | None:
        """The mean over the seeds, None where no seed has it."""
        values = [found[name] for found in self._of(method) if name in found]
        return statistics.fmean(values) if values else None

    def estimate(self, method: str, name: str, prefix: str) -> Estimate | None:
        """The metric `name` with the interval `<prefix>low`, `<prefix>high`."""
        runs = [found for found in self._of(method) if {name, f"{prefix}low", f"{prefix}high"} <= set(found)]
        if not runs:
            return None
        mean, low, high = (
            statistics.fmean(found[key] for found in runs) for key in (name, f"{prefix}low", f"{prefix}high")
        )
        return Estimate(mean, low, high, statistics.stdev(found[name] for found in runs) if len(runs) > 1 else 0.0)

    def tasks(self) -> Iterator[Task]:
        """What the methods were asked, in their order."""
        for method in self.methods:
            asked: tuple[tuple[str, Kind], ...] = (("", self._kind(method)), ("source_", "source"))
            for prefix, kind in asked:
                accuracy = self.estimate(method, f"{prefix}accuracy", prefix)
                if accuracy is None:
                    continue
                start = f"{prefix}control_conditions_"
                conditions = self.estimate(method, f"{start}accuracy", start)
                chance = self.mean(method, f"{prefix}chance")
                other = self.mean(method, f"{prefix}other_class")
                yield Task(method, kind, accuracy, 0.5 if chance is None else chance, other, conditions)

    def _kind(self, method: str) -> Kind:
        for seed in self.seeds:
            file = self.table(method, seed, "decisions")
            if file.exists():
                return kind_of(file)
        return "own" if self.mean(method, "questions") is not None else "source"

    def retrieval(self) -> list[dict[str, Any]]:
        """A row for each method and way, and one of chance: numbers by `own_r1`, `class_mrr` …"""
        rows = []
        for method in self.methods:
            for way in ("picture", "sound", "chance"):
                names = {
                    f"{wanted}_{depth}": f"{wanted}_{depth}_chance" if way == "chance" else f"{way}_{wanted}_{depth}"
                    for wanted in WANTED
                    for depth in DEPTHS
                }
                found = {key: self.mean(method, f"retrieval_{name}") for key, name in names.items()}
                if any(value is not None for value in found.values()):
                    rows.append({"method": method, "way": way, "values": found})
        return rows

    def pointing(self) -> list[tuple[str, Estimate, dict[str, float | None]]]:
        """Method, its hits, and what it is compared with."""
        return [
            (method, hits, {name: self.mean(method, f"localisation_{name}") for name in POINTED if name != "hits"})
            for method in self.methods
            if (hits := self.estimate(method, "localisation_hits", "localisation_"))
        ]

    def probes(self) -> list[tuple[str, dict[str, float | None]]]:
        """Method, and the accuracies of linear classifiers by the names of `PROBED`."""
        rows = [(name, {key: self.mean(name, f"probe_{key}_accuracy") for key in PROBED}) for name in self.methods]
        return [(name, found) for name, found in rows if found["picture"] is not None]


def kind_of(decisions: Path) -> Kind:
    """What the wrong pairs in a table of decisions are."""
    with reading(decisions):
        columns = pq.read_schema(decisions).names
    if "sound_clip" not in columns:
        return "own"
    table = read_parquet(decisions, ["clip", "sound_clip", "same"])
    clip, sound, same = (table[name].to_numpy(zero_copy_only=False) for name in ("clip", "sound_clip", "same"))
    return "moment" if np.any(~same & (clip == sound)) else "source"
