"""What a training costs: some of its own steps, of batches that grow as far as time and memory allow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sslflow.commands.estimate.bench import SMALLEST
from sslflow.commands.estimate.clock import Taken, taking
from sslflow.commands.estimate.machine import ram_now
from sslflow.data.dataset import Dataset
from sslflow.training.continued import Continued
from sslflow.training.fit import Step, fit
from sslflow.training.method import Method
from sslflow.views.images import Views

SECONDS = 3.0
"""Of one training's steps, about."""
GROWTH = 4
"""A batch is so many times as large as the one that was tried before."""
SPARE = 0.8
"""Share of the memory up to which a larger batch is tried."""
FOR_EVER = 10**6
"""Epochs: a measurement ends by its clock."""


@dataclass
class Steps:
    """What the steps of a training take."""

    batch: int
    """Examples in a step, as set, or as there are."""
    count: int
    """Steps of the run."""
    seconds: float = 0.0
    """Of a step."""
    views: float = 0.0
    """Of these, for making views."""
    reading: float = 0.0
    """For reading a batch, which is done meanwhile."""
    epoch: float = 0.0
    """Seconds before the first step of each epoch."""
    epochs: int = 1
    grown: int = 0
    """Bytes of memory for a batch as it is set."""
    gpu: int = 0
    tried: int = 0
    """The largest batch that was tried."""


def steps_of(
    method: Method,
    views: Views,
    dataset: Dataset[Any],
    rows: np.ndarray,
    full: int,
    device: torch.device,
    continued: Continued | None,
    train: Mapping[str, Any],
) -> Steps:
    """Of a training on `full` examples, of which the `rows` are at hand."""
    batch = min(train["batch_size"], full)
    found = Steps(batch, train["epochs"] * max(1, full // batch), epochs=train["epochs"])
    settings = {**train, "epochs": FOR_EVER, "compile": False}
    looks = type(method).start_epoch is not Method.start_epoch
    size = min(batch, max(SMALLEST, 2 * train.get("accumulate", 1)))
    left, sizes = SECONDS, []
    while True:
        count = max(2 * size, min(len(rows), 512)) if looks else max(full, size)
        some = np.resize(rows, count)
        run = fit(method, views, dataset, device, 0, None, some, continued, **{**settings, "batch_size": size})
        with taking(device) as first:
            next(run)
        with taking(device) as one:
            next(run)
        sizes.append((size, max(first.grown, one.grown), max(first.gpu, one.gpu)))
        left -= first.seconds + one.seconds
        larger = min(GROWTH * size, batch)
        if size == batch or 3 * one.seconds * larger / size > left or not _room(sizes, larger, device):
            break
        size = larger
    found.tried = size
    found.seconds = _mean(run, one, left, device) * batch / size
    if looks:
        found.epoch = _looking(run, found.seconds * size / batch, len(some) // size, device) / len(some) * full
    found.grown, found.gpu = (round(_at(sizes, batch, place)) for place in (1, 2))
    found.views, found.reading = _views(views, dataset, rows, size, device, batch)
    return found


def _mean(run: Iterator[Any], one: Taken, left: float, device: torch.device) -> float:
    """Seconds of a step, over as many as there is time for."""
    spent, count, until = one.seconds, 1, time.monotonic() + 4 * max(left, 0)
    while left > one.seconds and time.monotonic() < until:
        number = max(1, min(10, int(left / 2 / max(one.seconds, 1e-6))))
        with taking(device) as some:
            for _ in range(number):
                next(run)
        spent, count, left = spent + some.seconds, count + number, left - some.seconds
    return spent / count


def _looking(run: Iterator[Step], step: float, steps: int, device: torch.device) -> float:
    """Seconds that a method takes before the first step of an epoch of so many."""
    while next(run).number % steps:
        pass
    with taking(device) as taken:
        next(run)
    return max(0.0, taken.seconds - step)


def _views(
    views: Views, dataset: Dataset[Any], rows: np.ndarray, size: int, device: torch.device, batch: int
) -> tuple[float, float]:
    some = np.resize(rows, size)
    with taking(device) as reading:
        read = dataset.read(some)
    read = read.to(device)
    views.to(device).train()
    views(read)
    with taking(device) as made:
        views(read)
    return made.seconds * batch / size, reading.seconds * batch / size


def _room(sizes: list[tuple[int, int, int]], wanted: int, device: torch.device) -> bool:
    """Whether a batch of `wanted` would stay within the memory that there is."""
    if len(sizes) < 2:
        return True
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return _at(sizes, wanted, 2) < SPARE * (free + torch.cuda.memory_reserved(device))
    return _at(sizes, wanted, 1) < SPARE * ram_now()


def _at(sizes: list[tuple[int, int, int]], batch: int, place: int) -> float:
    """Bytes for a batch, on the line through the largest two that were tried."""
    if len(sizes) < 2 or sizes[-1][0] == batch:
        return float(sizes[-1][place]) * batch / sizes[-1][0] if sizes[-1][0] != batch else float(sizes[-1][place])
    (small, low), (large, high) = ((one[0], one[place]) for one in sizes[-2:])
    return max(float(high), high + (high - low) / (large - small) * (batch - large))


Watched = Callable[[], object]


def watching(watch: Watched, device: torch.device) -> Taken:
    """A look at the features for a row of the curve; the second, since the first finds memory."""
    watch()
    with taking(device) as taken:
        watch()
    return taken
