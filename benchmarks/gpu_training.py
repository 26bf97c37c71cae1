"""Trainings to a score on a GPU: whole runs of SimCLR with a ResNet-18, as long as there is time for."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_report import SEED, Line, Report
from benchmarks.gpu_speed import synchronize
from benchmarks.gpu_subjects import RECIPES, by_recipe
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.features.extract import calibrate, extract
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.encoder import Encoder
from sslflow.runtime.rng import derive
from sslflow.settings.params import read
from sslflow.training import method as image_methods
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, of_examples

TRIAL = 2.0
"""Seconds of steps, after the first ones, from which it is reckoned how many epochs there is time for."""
MOST = 400
"""Epochs."""


@dataclass(frozen=True)
class Set:
    """Images to train on, how they are prepared, and the encoder."""

    settings: Mapping[str, Any]
    encoder: Mapping[str, Any]
    epochs: int = MOST
    """At most."""


GREY = {"image_size": 28, "channels": 1}
RESNET = {"name": "resnet18", "stem_stride": 1}
SMALL = {"name": "resnet10", "width": 8, "stem_stride": 2}
EMOJI = Set({"source": "samples:emoji", "image_size": 64, "channels": 3}, {"name": "resnet18", "stem_stride": 2})


def _prepare(folder: Path, settings: dict[str, Any]) -> None:
    prepare(folder, lambda line: None, **settings)


class Sets:
    """Prepared sets by names; programs of their own prepare them meanwhile."""

    def __init__(self, folder: Path, asked: Mapping[str, Set]) -> None:
        self.folder, self.asked = folder, asked
        self._running: dict[str, SpawnProcess] = {}
        self._started = 0.0
        self.seconds: dict[str, float] = {}

    def begin(self, workers: int) -> None:
        """Start to prepare all of them, in so many processes."""
        self._started = time.monotonic()
        for name, one in self.asked.items():
            settings = {**one.settings, "workers": max(1, workers // len(self.asked))}
            self._running[name] = get_context("spawn").Process(target=_prepare, args=(self._place(name), settings))
            self._running[name].start()

    def wait(self) -> None:
        """Until all are prepared, or could not be."""
        for name, process in self._running.items():
            process.join()
            self.seconds[name] = time.monotonic() - self._started

    def opened(self, name: str) -> Dataset:
        """The set. Raises `ValueError` where it could not be prepared."""
        return Dataset(self._place(name))

    def _place(self, name: str) -> Path:
        return self.folder / f"prepared-{list(self.asked).index(name)}"


def sets(folder: Path, fashion: Path | None, mini: bool) -> Sets:
    """Fashion-MNIST, whole where its folder is given, else what is shipped of it, and the shipped emoji; in miniature
    digits."""
    if mini:
        return Sets(folder, {"digits, 8 px": Set({"source": "samples:digits/clean", **GREY}, SMALL, epochs=1)})
    whole = {"source": "idx", "path": str(fashion)} if fashion else {"source": "samples:fashion"}
    return Sets(folder, {"fashion, 28 px": Set({**whole, **GREY}, RESNET), "emoji, 64 px": EMOJI})


def scores(encoder: Encoder, dataset: Dataset, device: torch.device, line: Line) -> None:
    """Accuracies on the test images, in %, by kNN and by a linear classifier on the frozen features."""
    settings = read({"probe.knn": knn_predict, "probe.linear": fit_linear}, RECIPES / "full.yaml")
    train, test = (dataset.labelled_rows(split) for split in (TRAIN, TEST))
    features, asked = (torch.from_numpy(extract(encoder, dataset, rows, device)).to(device) for rows in (train, test))
    labels, right = (torch.from_numpy(dataset.labels[rows]).to(device) for rows in (train, test))
    classes = len(dataset.classes)
    neighbours = knn_predict(features, labels, asked, classes, **settings["probe.knn"])
    linear = fit_linear(features, labels, classes, derive(SEED, "probe"), **settings["probe.linear"])
    for name, predicted in (("kNN, %", neighbours), ("linear, %", linear.predict(asked))):
        line.values[name] = 100 * float((predicted == right).float().mean())
    if not linear.converged:
        line.note = "the linear classifier did not converge"


def train(
    dataset: Dataset, one: Set, device: torch.device, left: Callable[[], float], line: Line, kept: float = 0.0
) -> None:
    """SimCLR with the recipe's settings in bf16, as many epochs as `left()` seconds allow, less those `kept` for the
    scores; a schedule of so many, and ended early where it took longer than was reckoned."""
    kind, block = image_methods.find("simclr"), "methods.simclr"
    settings = by_recipe(kind, block)
    how = {**settings[f"{block}.train"], "precision": "bf16", "resident": True}

    def started(epochs: int) -> Any:
        torch.manual_seed(derive(SEED, "init"))
        method = build(kind, of_examples(dataset, dataset.pretraining_rows, one.encoder), settings[block])
        views = kind.Views(dataset.format, **settings[f"{block}.views"])
        return method, fit(method, views, dataset, device, SEED, **{**how, "epochs": epochs})

    epochs = min(one.epochs, max(1, int(0.9 * (left() - kept - TRIAL) / trial(started(1)[1], device))))
    method, run = started(epochs)
    took, loss, since = [], math.nan, time.perf_counter()
    with contextlib.closing(run):
        for step in run:
            if step.epoch == round(step.epoch):
                synchronize(device)
                took.append(time.perf_counter() - since)
                since, loss = time.perf_counter(), float(step.losses["loss"])
                if left() < kept + 1.5 * took[-1]:
                    break
    # The first epoch pays for what is set up once.
    epoch = statistics.median(took[1:] or took)
    images = step.batch_size * (step.steps // epochs)
    line.values |= {"epochs": len(took), "seconds an epoch": epoch, "images/s": images / epoch, "last loss": loss}
    calibrate(method.encoder, dataset, dataset.pretraining_rows, device)
    scores(method.encoder, dataset, device, line)
    if len(took) < epochs:
        line.note = "; ".join(filter(None, [line.note, f"ended after {len(took)} epochs of {epochs}"]))


def trial(run: Any, device: torch.device) -> float:
    """Seconds of an epoch, reckoned from some steps of it."""
    first, steps, began = None, 0, 0.0
    with contextlib.closing(run):
        for step in run:
            if first is None:
                if step.number >= min(3, step.steps - 1):
                    synchronize(device)
                    first, began = step.number, time.perf_counter()
            elif time.perf_counter() - began > TRIAL:
                break
    synchronize(device)
    steps = step.number - (first or 0)
    return (time.perf_counter() - began) / max(1, steps) * step.steps


def training(report: Report, found: Sets, device: torch.device) -> None:
    """For each set two lines: random weights, and a training from them, in its share of the time."""
    for number, (name, one) in enumerate(found.asked.items()):
        share = 1 / (len(found.asked) - number)

        def random(line: Line, name: str = name, one: Set = one) -> None:
            dataset = found.opened(name)
            line.values["images"] = len(dataset.pretraining_rows)
            line.values["prepared in, s"] = found.seconds.get(name, 0.0)
            torch.manual_seed(derive(SEED, "init"))
            form = dataset.format
            scores(Encoder(form.channels, form.size, **one.encoder), dataset, device, line)

        end = report.left("training") * (1 - share)
        report.measure("training", f"{name}: random weights", random)
        scored = report.lines[-1].seconds if report.lines[-1].outcome == "done" else report.left("training") / 3

        def simclr(line: Line, name: str = name, one: Set = one, end: float = end, scored: float = scored) -> None:
            train(found.opened(name), one, device, lambda: report.left("training") - end, line, 1.3 * scored)

        report.measure("training", f"{name}: simclr", simclr)
