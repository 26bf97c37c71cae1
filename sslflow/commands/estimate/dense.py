"""What learning what is where costs."""

from __future__ import annotations

from typing import Any

from sslflow.commands.estimate.bench import Bench
from sslflow.commands.estimate.clock import taking
from sslflow.commands.estimate.cost import Cost
from sslflow.commands.estimate.features import SKIPPED
from sslflow.data.splits import TEST, TRAIN
from sslflow.dense.rows import SCRATCH
from sslflow.dense.segmentation import PROTOCOLS, Protocol, segment
from sslflow.networks.starts import RANDOM
from sslflow.settings.params import schema
from sslflow.stages import segment as segmenting
from sslflow.training.method import names

TRIED = (2, 6)
"""Steps of the two trials whose difference tells what a step takes."""


def segmented(bench: Bench, name: str) -> Cost:
    """Training by each protocol on each share of the masks, and a test after each."""
    sample = bench.images
    part = len(sample.dataset) / max(1, sample.counts.images)
    train, test = (round(len(sample.dataset.annotated_rows(split, "mask")) / part) for split in (TRAIN, TEST))
    cost = bench.begun("segment" if train and test else SKIPPED)
    if not (train and test):
        return cost
    given = bench.settings(segmenting.schemas())["segment"]
    settings = {name: given.get(name, known.default) for name, known in schema(segment).items()}
    weights = bench.start(name) if name in names() else RANDOM if name in (SCRATCH, RANDOM) else name
    for protocol in segmenting.ROWS.get(name, PROTOCOLS):
        step, tested, grown = _trying(bench, weights, protocol, settings)
        for fraction in settings["fractions"]:
            per_epoch = max(1, round(fraction * train) // settings["batch_size"])
            cost.spend("the network's steps", step * max(settings["epochs"] * per_epoch, settings["min_steps"]))
            cost.spend("testing", test * tested)
        cost.ram = max(cost.ram, bench.begun("segment").ram + grown)
    return cost


def _trying(bench: Bench, weights: str, protocol: Protocol, settings: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds of a step and of an image that is tested, and bytes."""
    key, dataset = ("segmenting", weights, protocol), bench.images.dataset
    if (*key, "step") not in bench.rates:
        share = min(1.0, settings["batch_size"] / len(dataset.annotated_rows(TRAIN, "mask")))
        times, grown = [], 0
        for steps in TRIED:
            own = {**settings, "fractions": (share,), "epochs": 1, "min_steps": steps}
            with taking(bench.device) as taken:
                list(segment(lambda: bench.encoder(weights, dataset), dataset, bench.device, 0, (protocol,), **own))
            times.append(taken.seconds)
            grown = max(grown, taken.grown)
        step = max(1e-6, (times[1] - times[0]) / (TRIED[1] - TRIED[0]))
        tested = max(0.0, times[0] - TRIED[0] * step) / len(dataset.annotated_rows(TEST, "mask"))
        bench.rates[*key, "step"], bench.rates[*key, "test"], bench.rates[*key, "grown"] = step, tested, grown
    step, tested, memory = (bench.rates[*key, what] for what in ("step", "test", "grown"))
    return step, tested, int(memory)
