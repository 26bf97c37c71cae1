"""The runs that `benchmarks.imbalance` compares: images, rows and settings, and what of them has been measured."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from benchmarks.kept import ROOT, code_of, make
from benchmarks.methods_runs import ENCODERS
from benchmarks.stages import run_python
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.data.splits import TEST, TRAIN, placed
from sslflow.evaluation.linear import fit_linear
from sslflow.features.extract import extract
from sslflow.ingest.images.imbalance import profile, subset, train_sizes
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.records import Item, Record, Source
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder
from sslflow.networks.starts import Start
from sslflow.networks.weights import given
from sslflow.runtime.files import read_json, sha256, write_json
from sslflow.runtime.rng import derive
from sslflow.settings.params import load, lookup

WORK = Path("work/benchmarks/imbalance")
SEEDS = (0, 1, 2)
SETS: dict[str, dict[str, Any]] = {
    "fashion": {"source": "samples:fashion", "image_size": 28, "channels": 1},
    "emoji": {"source": "samples:emoji", "image_size": 32, "channels": 3},
}
SIDES = {"fashion": 56, "emoji": 64}
"""Pixels to which images are brought for the weights."""
LEFT_OUT = {"emoji": ("Component",)}
"""Classes with too few images for a balanced set: this one has 12."""
HELD_OUT = {"fashion": 200, "emoji": 60}
"""Labelled images of each class for the classifier, which no row is trained on: supervised features know the labels of
what they have seen."""
FACTOR = 100.0
KINDS = ("long-tailed", "balanced")
WEIGHTS = "package:efficientnet-lite0"
IMAGES_SEEN = 60_000
CONTINUED_EPOCHS = 4


@dataclass(frozen=True)
class Row:
    """A line of the tables: a method, if one is trained, and whether it goes on from weights that exist."""

    method: str = ""
    continued: bool = False


ROWS = {
    "supervised": Row("supervised"),
    "simclr": Row("simclr"),
    "lite0, as it came": Row(continued=True),
    "deepcluster": Row("deepcluster"),
    "simclr, continued from lite0": Row("simclr", continued=True),
}


@dataclass(frozen=True)
class Job:
    """One row with one seed on one data set of one kind."""

    data: str
    kind: str
    row: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where its stages run."""
        return WORK / self.data / self.row.replace(", ", "-").replace(" ", "-") / f"{self.kind}-{self.seed}"

    @property
    def result(self) -> Path:
        """What was measured."""
        return self.folder / "result.json"


@cache
def images(data: str, kind: str, seed: int) -> Path:
    """The prepared folder with the images of a kind: `long-tailed`, `balanced`, or `probe`."""
    folder = WORK / "prepared" / f"{data}-{kind}-{seed}"

    def build() -> None:
        prepare(folder, lambda line: None, part=partial(cut, data=data, kind=kind, seed=seed), **SETS[data], workers=1)

    make(folder, [SETS[data], LEFT_OUT.get(data), HELD_OUT[data], FACTOR, kind, seed], ("data", "ingest"), build)
    return folder


def cut(source: Source, data: str, kind: str, seed: int) -> Source:
    """What a kind of images has of a source to train on."""
    source = _without(source, LEFT_OUT.get(data, ()))
    held = _held_out(source, HELD_OUT[data], seed)
    if kind == "probe":
        return _trained_on(source, lambda name: name in held)
    rest = _trained_on(source, lambda name: name not in held)
    sizes = {source.classes[label]: size for label, size in train_sizes(rest).items()}
    shares = sum(FACTOR ** (-rank / (len(sizes) - 1)) for rank in range(len(sizes)))
    # With a larger class than this the smallest has too few for a balanced set of as many images.
    most = int(min(sizes.values()) * len(sizes) / shares)
    chosen = profile({name: min(size, most) for name, size in sizes.items()}, FACTOR, seed)
    if kind == "balanced":
        each, over = divmod(sum(chosen.values()), len(sizes))
        ordered = sorted(sizes, key=sizes.__getitem__, reverse=True)
        chosen = {name: each + (place < over) for place, name in enumerate(ordered)}
    return subset(rest, {source.classes.index(name): count for name, count in chosen.items()}, seed)


def _held_out(source: Source, each: int, seed: int) -> set[str]:
    """Names of `each` images to train on of every class, or a few more: groups, in an order drawn by `seed`, stay
    whole."""
    groups: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for item in source.records():
        if isinstance(item, Record) and item.split == TRAIN:
            groups[item.label, item.group or item.name].append(item.name)
    held: defaultdict[int, list[str]] = defaultdict(list)
    for label, group in sorted(groups, key=lambda one: placed(seed, "held out", one[1])):
        if len(held[label]) < each:
            held[label] += groups[label, group]
    return {name for names in held.values() for name in names}


def _trained_on(source: Source, wanted: Callable[[str], bool]) -> Source:
    """The source with those images to train on whose names are wanted."""

    def records() -> Iterator[Item]:
        for item in source.records():
            if not isinstance(item, Record) or item.split != TRAIN or wanted(item.name):
                yield item

    return replace(source, records=records)


def _without(source: Source, classes: tuple[str, ...]) -> Source:
    gone = {source.classes.index(name) for name in classes}
    kept = [label for label in range(len(source.classes)) if label not in gone]
    number = {label: place for place, label in enumerate(kept)}

    def records() -> Iterator[Item]:
        for item in source.records():
            if not isinstance(item, Record):
                yield item
            elif item.label in number:
                yield replace(item, label=number[item.label])

    return replace(source, classes=tuple(source.classes[label] for label in kept), records=records)


def make_folder(job: Job) -> None:
    """A folder in which stages find prepared images and their settings."""
    job.folder.mkdir(parents=True, exist_ok=True)
    prepared, row = images(job.data, job.kind, job.seed), ROWS[job.row]
    link = job.folder / paths.PREPARED
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(prepared.resolve(), target_is_directory=True)
    params = load(ROOT / "recipes/full.yaml")
    params["encoder"] = ENCODERS["resnet"]
    params["compute"] |= {"device": "cpu", "threads": 1}
    params["starts"] = {"lite0": {"weights": WEIGHTS, "side": SIDES[job.data]}}
    params["pretrain"]["log_every"] = 1000
    if row.continued:
        # What is kept may not depend on labels, of which the two kinds have others.
        params["start"] |= {"weights": "lite0", "keep": "last"}
    if row.method:
        seen = round(IMAGES_SEEN / len(Dataset(prepared).pretraining_rows))
        train = {**lookup(params, f"methods.{row.method}.train"), "epochs": CONTINUED_EPOCHS if row.continued else seen}
        params["methods"][row.method] = {**lookup(params, f"methods.{row.method}"), "train": train}
    with (job.folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump({**params, "domains": {}, "clips": {}}, handle)


def key(job: Job) -> str:
    """Changes when the settings that the row reads do, or its images, or the code of its method."""
    params, row = load(job.folder / "params.yaml"), ROWS[job.row]
    content: list[Any] = [job.data, job.kind, job.row, job.seed, params["starts"]]
    content += [params[section] for section in ("encoder", "extract", "probe", "start", "train", "views")]
    for folder in (images(job.data, job.kind, job.seed), images(job.data, "probe", job.seed)):
        content.append(sha256(folder / "manifest.parquet"))
    content += [lookup(params, f"methods.{row.method}"), code_of(row.method)] if row.method else []
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def measured(job: Job) -> dict[str, Any] | None:
    """The result, where it was measured with the present settings."""
    found = read_json(job.result) if job.result.exists() else None
    return found if found and found["key"] == key(job) else None


def run(job: Job) -> None:
    """Train one job, fit the classifiers, and write what they take the test images for."""
    row, began = ROWS[job.row], time.monotonic()
    result: dict[str, Any] = {"key": key(job)}
    own = Dataset[ImageFormat](images(job.data, job.kind, job.seed))
    if row.method:
        if row.continued:
            _stage(job, "scan")
        _stage(job, "pretrain", row.method, str(job.seed))
        result["seconds"] = read_json(job.folder / paths.metrics("pretrain", f"{row.method}-{job.seed}"))["seconds"]
        encoder = load_encoder(job.folder / paths.encoder(row.method, job.seed))
    else:
        encoder = given(Start(weights=WEIGHTS, side=SIDES[job.data]), own.format)
    settings = load(job.folder / "params.yaml")
    shared = Dataset[ImageFormat](images(job.data, "probe", job.seed))
    shared.format = own.format  # the encoder's images are normalised as those that it was trained on
    for probe, dataset in (("held_out", shared), ("own", own)):
        rows = dataset.labelled_rows(TRAIN)
        fitted = fit_linear(
            _features(encoder, dataset, rows, settings),
            torch.from_numpy(dataset.labels[rows]),
            len(dataset.classes),
            derive(job.seed, "probe"),
            torch.from_numpy(dataset.groups[rows]),
            **settings["probe"]["linear"],
        )
        test = dataset.labelled_rows(TEST)
        result[probe] = fitted.predict(_features(encoder, dataset, test, settings)).tolist()
        result[f"{probe}_validation"] = fitted.validation_accuracy
        result[f"{probe}_converged"] = int(fitted.converged)
    for folder in ("artifacts", "work"):
        shutil.rmtree(job.folder / folder, ignore_errors=True)
    write_json(job.result, result)
    print(
        f"{job.data}  {job.kind}  {job.row}  seed {job.seed}  validation {100 * result['held_out_validation']:.1f} %  "
        f"{time.monotonic() - began:.0f} s",
        flush=True,
    )


def _features(encoder: Encoder, dataset: Dataset[ImageFormat], rows: np.ndarray, settings: dict) -> torch.Tensor:
    return torch.from_numpy(extract(encoder, dataset, rows, torch.device("cpu"), **settings["extract"]))


def _stage(job: Job, stage: str, *arguments: str) -> None:
    words = ["-m", f"sslflow.stages.{stage}", *arguments]
    run_python(words, job.folder, stage, f"{job.row}, seed {job.seed}, on {job.data}")
