"""The bars of `gated_dance`, chosen on tasks that are made of sources alone: `python -m benchmarks.bars`.

No image of a target takes part, and no label of one: half of each source plays the target, under other views and with
classes left out (`sslflow.adaptation.simulated`). Encoders are those of `benchmarks.adaptation`. What has been measured
is not measured again. `--table docs/benchmarks.md` writes the tables.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import adaptation_runs as pairs
from benchmarks.kept import make
from benchmarks.tables import show
from sslflow.adaptation.has_unknown import look_for_unknown
from sslflow.adaptation.inputs import Residual, of_features
from sslflow.adaptation.loop import adapt, judge
from sslflow.adaptation.simulated import IMAGES, SHIFTS, Simulated, bars_by, shifted_features, simulated
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.examination.adaptation.open_set import open_set_scores
from sslflow.features.extract import extract
from sslflow.ingest.images.prepare import prepare
from sslflow.methods.adaptation.gated_dance import GatedDANCE, Unknown
from sslflow.networks.saved import load_encoder
from sslflow.runtime.files import read_json, write_json
from sslflow.runtime.rng import derive, permutation

WORK = pairs.ROOT / "work/benchmarks/bars"
CPU = torch.device("cpu")
SOURCES = {
    "noto": "samples:emoji/noto",
    "twemoji": "samples:emoji/twemoji",
    "openmoji": "samples:emoji/openmoji",
    "fashion": "samples:fashion",
}
"""Digits have no part: on them it can be seen how the bars do elsewhere."""
DRAWS = 2
TRAINED_UNDER = ("medium",)
CENTRE: dict[str, Any] = {"margin": 0.17, "first": 0.5, "neighbours": 6}
TRAINED: dict[str, tuple[float, ...]] = {"margin": (0.1, 0.25), "first": (0.0, 0.25, 0.75)}
NEIGHBOURS = (1, 3, 12)
TOLD: dict[str, Unknown] = {"cda": "none", "pda": "none", "oda": "some", "opda": "some"}
"""Where the gate is unsure, margin, first and neighbours have no effect."""
CODE = ("adaptation", "methods/adaptation", "examination/adaptation")


@dataclass(frozen=True)
class Place:
    """One source under one shift, seen by the encoder of one seed."""

    source: str
    seed: int
    shift: str

    @property
    def family(self) -> str:
        """Whose encoder."""
        return SOURCES[self.source].removeprefix("samples:").partition("/")[0]


def tasks(place: Place, draws: int) -> Iterator[Simulated]:
    """The tasks of a place."""
    encoder = load_encoder(pairs.pretrained(place.family, place.seed))
    folder, form = WORK / "prepared" / place.source, pairs.FORMATS[place.family]
    sample = SOURCES[place.source]
    make(folder, [sample, form], ("data", "ingest"), lambda: prepare(folder, print, source=sample, **form))
    dataset = Dataset[ImageFormat](folder)
    rows = np.flatnonzero(dataset.labels >= 0)
    rows = rows[permutation(len(rows), place.seed, "rows")[:IMAGES].sort().values.numpy()]
    labels = torch.from_numpy(np.unique(dataset.labels[rows], return_inverse=True)[1])
    features = torch.from_numpy(extract(encoder, dataset, rows, CPU))
    shifted = shifted_features(encoder, dataset, rows, CPU, place.shift)
    for draw in range(draws):
        yield from simulated(features, shifted, labels, derive(place.seed, "draw", draw))


def seen(place: Place) -> list[dict[str, Any]]:
    """What the gate sees in each task of a place."""

    def look() -> Iterator[dict[str, Any]]:
        for task in tasks(place, DRAWS):
            found = look_for_unknown(task.source, task.labels, task.target, task.classes, 0.05, 6)
            yield {"open": task.open, "evidence": found.evidence, "entropy": found.entropy}

    return _kept("seen", place, [DRAWS], look)


def trained(place: Place) -> list[dict[str, Any]]:
    """The main score of `gated_dance`, told whether something is unknown, with each value in each task of a place."""
    train = pairs.settings()["adapt.train"]

    def measure() -> Iterator[dict[str, Any]]:
        for task in tasks(place, 1):
            scores: dict[tuple[str, float], float] = {}
            tried = [(name, value) for name, values in TRAINED.items() for value in values]
            for name, value in [("", 0.0), *tried]:
                if name == "margin" and not task.open:
                    continue
                own = {**CENTRE, **({name: value} if name else {})}
                model, features = _adapted(task, own, train)
                scores[name, value] = _main(task, model, features)
                if not name:
                    for other in NEIGHBOURS:
                        model.neighbours = other
                        scores["neighbours", other] = _main(task, model, features)
            centre = scores.pop(("", 0.0))
            for (name, value), score in scores.items():
                yield {"setting": task.setting, "name": name, "value": value, "gain": score - centre}

    return _kept("trained", place, [CENTRE, TRAINED, NEIGHBOURS, train], measure)


def _adapted(task: Simulated, own: dict[str, Any], train: dict[str, Any]) -> tuple[GatedDANCE, torch.Tensor]:
    torch.manual_seed(0)
    dim = task.source.shape[1]
    model = GatedDANCE(Residual(dim), dim, task.classes, len(task.target), **own, unknown=TOLD[task.setting])
    source, target = of_features(task.source), of_features(task.target)
    for _ in adapt(model, source, task.labels, target, CPU, 0, **train):
        pass
    return model, judge(model, target)[1]


@torch.no_grad()
def _main(task: Simulated, model: GatedDANCE, features: torch.Tensor) -> float:
    judged = model.judge(features)
    scores = open_set_scores(task.actual, judged.decisions, judged.classes, judged.unknownness)
    return scores["h"] if task.open else scores["accuracy"]


def _kept(kind: str, place: Place, made_of: list[Any], measure: Callable[[], Iterator[dict[str, Any]]]) -> list[Any]:
    file = WORK / kind / f"{'-'.join(map(str, astuple(place)))}.json"
    encoder = pairs.pretrained(place.family, place.seed).with_suffix(".safetensors.made_of").read_text()

    def work_out() -> None:
        write_json(file, list(measure()))
        print(kind, *astuple(place), flush=True)

    make(file, [astuple(place), made_of, encoder], CODE, work_out)
    return read_json(file, list)


def seen_table(places: list[Place]) -> Iterator[str]:
    """A row for each source: what the gate sees where nothing and where something is unknown, and bars by it."""
    yield "| source | evidence, nothing unknown | something unknown | bars by it | entropy | told apart (AUC) |"
    yield "|---|---|---|---|---|---|"
    found = {place: seen(place) for place in places}
    for source in SOURCES:
        rows = [row for place, these in found.items() if place.source == source for row in these]
        if not rows:
            continue
        closed, opened = ([row["evidence"] for row in rows if row["open"] == kind] for kind in (False, True))
        bars = bars_by(closed, opened)
        ranges = [
            f"{min(part):.2f} to {max(part):.2f}, median {statistics.median(part):.2f}" for part in (closed, opened)
        ]
        auc = statistics.fmean((a > b) + (a == b) / 2 for a in opened for b in closed)
        entropy = statistics.fmean(row["entropy"] for row in rows)
        yield f"| {source} | {' | '.join(ranges)} | {bars.closed:.2f}, {bars.open:.2f} | {entropy:.2f} | {auc:.2f} |"


def trained_table(places: list[Place]) -> Iterator[str]:
    """A row for each value: by how much it is better than the value in use, in points, and the range over
    sources, which share drawings and encoders."""
    every = [{**row, "source": place.source} for place in places for row in trained(place)]
    yield "| | nothing unknown | something unknown |"
    yield "|---|---|---|"
    for name, value in dict.fromkeys((row["name"], row["value"]) for row in every):
        cells = []
        for settings in (("cda", "pda"), ("oda", "opda")):
            means = defaultdict(list)
            for row in every:
                if (row["name"], row["value"]) == (name, value) and row["setting"] in settings:
                    means[row["source"]].append(100 * row["gain"])
            values = np.array([statistics.fmean(one) for one in means.values()])
            cells.append(f"{values.mean():+.1f} ({values.min():+.1f} to {values.max():+.1f})" if len(values) else "")
        yield f"| {name} {value:g} instead of {CENTRE[name]:g} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    places = [Place(source, seed, shift) for source in asked.sources for seed in asked.seeds for shift in SHIFTS]
    under = [place for place in places if place.seed == asked.seeds[0] and place.shift in TRAINED_UNDER]
    show([*seen_table(places), "", *trained_table(under)], asked.table, "bars")


if __name__ == "__main__":
    main()
