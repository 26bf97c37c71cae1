"""What learning what is where costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sslflow.commands.estimate.bench import Bench
from sslflow.commands.estimate.clock import taking
from sslflow.commands.estimate.cost import Cost
from sslflow.commands.estimate.features import SKIPPED
from sslflow.data.splits import TEST, TRAIN
from sslflow.dense.boxes import detection
from sslflow.dense.masks import segmentation
from sslflow.dense.protocols import PROTOCOLS
from sslflow.networks.starts import RANDOM, SCRATCH
from sslflow.settings.params import schema
from sslflow.settings.sections import IMAGES
from sslflow.stages import detect as detecting
from sslflow.stages import segment as segmenting
from sslflow.training.method import names

TRIED = (2, 6)
"""Steps of the two trials whose difference tells what a step takes."""


@dataclass(frozen=True)
class Task:
    """What is learnt: its stage, the annotation that it needs, how it is learnt, and by which protocols."""

    stage: str
    kind: str
    learn: Callable[..., Any]
    schemas: Callable[[str], Mapping[str, Callable[..., Any]]]
    rows: Mapping[str, tuple[str, ...]]
    protocols: tuple[str, ...]


SEGMENT = Task("segment", "mask", segmentation.segment, segmenting.schemas, segmenting.ROWS, PROTOCOLS)
DETECT = Task("detect", "boxes", detection.detect, detecting.schemas, detecting.ROWS, detection.PROTOCOLS)


def segmented(bench: Bench, name: str) -> Cost:
    """Training by each protocol on each share of the masks, and a test after each."""
    return _learnt(bench, SEGMENT, name)


def detected(bench: Bench, name: str) -> Cost:
    """The same with boxes."""
    return _learnt(bench, DETECT, name)


def _learnt(bench: Bench, task: Task, name: str) -> Cost:
    sample = bench.images
    part = len(sample.dataset) / max(1, sample.counts.images)
    train, test = (round(len(sample.dataset.annotated_rows(split, task.kind)) / part) for split in (TRAIN, TEST))
    cost = bench.begun(task.stage if train and test else SKIPPED)
    if not (train and test):
        return cost
    given = bench.settings(task.schemas(IMAGES))[task.stage]
    settings = {name: given.get(name, known.default) for name, known in schema(task.learn).items()}
    weights = bench.start(name) if name in names() else RANDOM if name in (SCRATCH, RANDOM) else name
    for protocol in task.rows.get(name, task.protocols):
        step, tested, grown = _trying(bench, task, weights, protocol, settings)
        for fraction in settings["fractions"]:
            per_epoch = max(1, round(fraction * train) // settings["batch_size"])
            cost.spend("the network's steps", step * max(settings["epochs"] * per_epoch, settings["min_steps"]))
            cost.spend("testing", test * tested)
        cost.ram = max(cost.ram, bench.begun(task.stage).ram + grown)
    return cost


def _trying(
    bench: Bench, task: Task, weights: str, protocol: str, settings: dict[str, Any]
) -> tuple[float, float, int]:
    """Seconds of a step and of an image that is tested, and bytes."""
    key, dataset = (task.stage, weights, protocol), bench.images.dataset
    if (*key, "step") not in bench.rates:
        share = min(1.0, settings["batch_size"] / len(dataset.annotated_rows(TRAIN, task.kind)))
        times, grown = [], 0
        for steps in TRIED:
            own = {**settings, "fractions": (share,), "epochs": 1, "min_steps": steps}
            with taking(bench.device) as taken:
                list(task.learn(lambda: bench.encoder(weights, dataset), dataset, bench.device, 0, (protocol,), **own))
            times.append(taken.seconds)
            grown = max(grown, taken.grown)
        step = max(1e-6, (times[1] - times[0]) / (TRIED[1] - TRIED[0]))
        tested = max(0.0, times[0] - TRIED[0] * step) / len(dataset.annotated_rows(TEST, task.kind))
        bench.rates[*key, "step"], bench.rates[*key, "test"], bench.rates[*key, "grown"] = step, tested, grown
    step, tested, memory = (bench.rates[*key, what] for what in ("step", "test", "grown"))
    return step, tested, int(memory)
