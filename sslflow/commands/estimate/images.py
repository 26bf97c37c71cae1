"""What the stages for images cost."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch

from sslflow.commands.estimate.bench import Bench
from sslflow.commands.estimate.clock import cores, taking
from sslflow.commands.estimate.cost import Cost
from sslflow.commands.estimate.sample import Sample
from sslflow.commands.estimate.startup import LIGHT
from sslflow.commands.estimate.training import Steps, steps_of, watching
from sslflow.features.extract import CALIBRATED
from sslflow.monitoring.drift import Drift
from sslflow.monitoring.watch import Watch
from sslflow.networks.batch_norm import batch_norms
from sslflow.networks.encoder import Encoder
from sslflow.networks.starts import RANDOM
from sslflow.stages import pretrain as pretraining
from sslflow.stages import preview
from sslflow.training.continued import Continued, hold
from sslflow.training.ingredients import build, example_rows, ingredients, of_examples
from sslflow.training.method import Method, find
from sslflow.training.run import Journal

FLOAT = 4
"""Bytes."""
FEW = 100
"""Images below which pretraining makes no sense."""
ENLARGED = 1.5
"""So many times as large as they are, images are said to be enlarged."""
MANIFEST = 200
"""Bytes of a row, about."""


def prepared(bench: Bench, sample: Sample) -> Cost:
    """Decoding by several processes, gathered by one."""
    cost, count = bench.begun("prepare"), sample.counts.images
    workers = sample.workers * sample.starting + count * sample.decoding
    gathered = count * sample.main
    at_once = max(gathered, (gathered + workers) / cores(), workers / max(1, sample.workers))
    what = "decoding" if workers / max(1, sample.workers) > gathered else "gathering, by one process,"
    cost.spend("listing", sample.listing)
    cost.spend(what, at_once)
    cost.work = sample.listing + gathered + workers
    channels, side = sample.dataset.format.channels, sample.dataset.format.size
    stored = sample.dataset.stored
    size = float(sample.dataset.column("length").mean()) if stored else channels * side**2
    bench.kept(cost, round(count * (size + MANIFEST)))
    cost.ram += sample.workers * bench.starts[LIGHT].ram
    if not sample.whole:
        cost.notes.append(f"reckoned from {len(sample.dataset):,} of about {count:,} images")
    return cost


def pretrain(bench: Bench, name: str) -> Cost:
    """Steps, rows of the curve, and what comes after the last."""
    cost, sample = bench.begun("pretrain"), bench.images
    settings = bench.settings(pretraining.schemas(name))
    kind, block = find(name), f"methods.{name}"
    start = Continued(**settings[f"{block}.start"])
    dataset, full = sample.dataset, images_of(kind, sample)
    rows, train = example_rows(kind, dataset), settings[f"{block}.train"]
    with taking() as built:
        method = _method(bench, kind, settings, name, rows, full)
    cost.spend("starting", built.seconds)
    if start.given:
        for encoder in method.encoders.values():
            hold(encoder, start.blocks, full)
    views = kind.Views(dataset.format, **settings[f"{block}.views"])
    found = steps_of(method, views, dataset, rows, full, bench.device, start if start.given else None, train)
    journal = Journal(**settings["pretrain"])
    told(cost, found, journal, train)
    memory_format = train.get("memory_format", "channels_last")
    watched = np.resize(rows, min(journal.diagnostics, full))
    watch = Watch(method, views, dataset, watched, bench.device, 0, memory_format)
    look = watching(watch, bench.device).seconds
    if start.given:
        compared = np.resize(rows, min(pretraining.COMPARED, full))
        drift = Drift(method.encoder, dataset, compared, bench.device, memory_format)
        look += watching(lambda: drift(0), bench.device).seconds
    cost.spend("diagnostics", look * rows_of_curve(found.count, journal.log_every))
    if batch_norms(method):
        bench.extract(cost, "calibrating", min(CALIBRATED, full), start.weights)
    bench.encoders[name] = method.encoder
    weights = bytes_of(method)
    bench.kept(cost, weights + sum(bytes_of(encoder) for encoder in method.encoders.values()))
    cost.disk += 3 * weights  # the checkpoint, with AdamW's two moments, while it runs
    return cost


def _method(
    bench: Bench, kind: type[Method], settings: dict[str, Any], name: str, rows: np.ndarray, full: int
) -> Method:
    """The method for as many images as there are, with the ingredients of those at hand."""
    start, dataset = Continued(**settings[f"methods.{name}.start"]), bench.images.dataset
    given = {
        **of_examples(dataset, rows, settings["encoder"]),
        "encoder": lambda: bench.encoder(start.weights, dataset),
        "labels": lambda: torch.from_numpy(np.resize(dataset.labels[rows], full)),
        "images": lambda: full,
        "teacher": lambda: bench.encoder(start.teacher, dataset),
    }
    return build(kind, given, settings[f"methods.{name}"])


def images_of(kind: type[Method], sample: Sample) -> int:
    """Images that a method is trained on."""
    return sample.counts.train if "labels" in ingredients(kind) else sample.counts.pretraining


def rows_of_curve(steps: int, every: int) -> int:
    """Looks at the features in a run: before the first step, every so often, after the last."""
    return 1 + steps // every + (steps % every > 0)


def told(cost: Cost, found: Steps, journal: Journal, train: dict[str, Any]) -> None:
    """What the steps take, and how it is known."""
    binds = found.reading > found.seconds
    step = max(found.seconds, found.reading)
    cost.spend("reading from the disk" if binds else "views", found.count * (step if binds else found.views))
    if not binds:
        cost.spend("the network's steps", found.count * max(0.0, step - found.views))
    if found.epoch:
        cost.spend("looking at all images between epochs", found.epochs * found.epoch)
    cost.ram += found.grown
    cost.gpu = found.gpu
    if found.tried < found.batch:
        cost.notes.append(f"reckoned from steps of {found.tried} images, not {found.batch}")
    if train.get("compile"):
        cost.notes.append("compile is not measured: steps are faster than this, and the first takes a minute or two")


def bytes_of(module: torch.nn.Module) -> int:
    """Of its weights and buffers as a file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def extracted(bench: Bench, name: str) -> Cost:
    """Features of all images."""
    cost, count = bench.begun("extract"), bench.images.counts.images
    bench.extract(cost, "the network", count, bench.start(name))
    bench.kept(cost, count * bench.encoder(bench.start(name), bench.images.dataset).dim * FLOAT)
    return cost


def previewed(bench: Bench, name: str) -> Cost:
    """As long as its settings say, and the sheet."""
    cost = bench.begun("preview")
    look = preview.Look(**bench.settings(preview.schemas(name))["preview"])
    cost.spend("timing, as long as preview.seconds says,", look.seconds)
    return cost


def misgivings(bench: Bench) -> list[str]:
    """What of the images doesn't go together with the settings."""
    sample, side = bench.images, bench.images.dataset.format.size
    found = []
    if sample.counts.pretraining < FEW:
        found.append(
            f"{sample.counts.pretraining} images to pretrain on: too few to learn an encoder from; take weights that "
            "exist (docs/starts.md), or add images"
        )
    if sample.widths and (width := statistics.median(sample.widths)) * ENLARGED <= side:
        found.append(
            f"images are {width:.0f} pixels wide (median) and data.image_size is {side}: enlarging adds no detail and "
            f"costs {(side / width) ** 2:.0f} times the time; set it to about {width:.0f}"
        )
    if bench.start() == RANDOM:
        rows = _map_side(bench, side)
        if rows == 1:
            name = bench.settings({"encoder": Encoder})["encoder"].get("name", "resnet18")
            found.append(
                f"encoder {name} brings images of {side} pixels to a map of a single cell: too large a network for so "
                "small images; a smaller encoder.stem_stride or patch_size, or a larger data.image_size, keeps more"
            )
    return found


@torch.no_grad()
def _map_side(bench: Bench, side: int) -> int:
    encoder = bench.encoder(RANDOM, bench.images.dataset).eval()
    try:
        return encoder.map(torch.zeros(1, encoder.channels, side, side)).shape[-1]
    except ValueError:  # a network without a map
        return side
