"""Where stages are measured: settings, device, data, and what has been measured already."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslflow import paths
from sslflow.commands.estimate.clock import Taken, taking
from sslflow.commands.estimate.cost import Cost
from sslflow.commands.estimate.machine import disk_speeds
from sslflow.commands.estimate.sample import Sample, of_prepared, sampled
from sslflow.commands.estimate.startup import KIND, NETWORKS, Startup
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.features.extract import extract
from sslflow.networks.encoder import Encoder
from sslflow.networks.starts import RANDOM, Start
from sslflow.networks.weights import given
from sslflow.settings.params import Schemas, checked, lookup
from sslflow.settings.sections import IMAGES

SECONDS = 1.0
"""That one measurement takes, about."""
SMALLEST = 8
"""Images with which a measurement begins."""


@dataclass
class Bench:
    """What the functions that measure share."""

    content: Mapping[str, Any]
    """Of params.yaml, which has been checked."""
    folder: Path
    """For what is prepared only to be measured."""
    stale: Collection[str]
    """Stages that will run."""
    starts: Mapping[str, Startup]
    device: torch.device
    tell: Callable[[str], None]
    rates: dict[tuple[str, ...], float] = field(default_factory=dict)
    """What was measured, by what it is of."""
    encoders: dict[str, Encoder] = field(default_factory=dict)
    """Of methods, after the steps that were measured."""
    pairs: dict[str, Any] = field(default_factory=dict)
    """Domains, by name."""
    cuts: dict[str, Any] = field(default_factory=dict)
    """Sets of clips, by name."""

    def settings(self, schemas: Schemas) -> dict[str, dict[str, Any]]:
        """As a stage reads them."""
        problems: list[str] = []
        found = checked(schemas, self.content, problems)
        assert not problems, "settings that have been checked"
        return found

    def begun(self, stage: str) -> Cost:
        """What a stage takes before it does anything."""
        start = self.starts[KIND.get(stage, NETWORKS)]
        return Cost(start.seconds, start.ram, parts={"starting": start.seconds})

    @cached_property
    def images(self) -> Sample:
        """The prepared images, or such as will be."""
        if "prepare" in self.stale:
            self.tell("preparing a part of the images")
            from sslflow.stages import prepare

            return sampled(self.folder / "prepared", self.settings(prepare.schemas(IMAGES))["data"], self.tell)
        return of_prepared(paths.PREPARED)

    @cached_property
    def saving(self) -> float:
        """Seconds a byte of outputs."""
        return 1 / self._disk[0]

    @cached_property
    def reading(self) -> float:
        """Seconds a byte that isn't in memory."""
        return 1 / self._disk[1]

    @cached_property
    def _disk(self) -> tuple[float, float]:
        return disk_speeds(self.folder)

    def kept(self, cost: Cost, size: int, *, cached: bool = True) -> None:
        """Add outputs of so many bytes, in DVC's cache, too."""
        cost.disk += size * (2 if cached else 1)
        cost.spend("saving", size * self.saving)

    def encoder(self, name: str, dataset: Dataset) -> Encoder:
        """One with random weights, or with those of a name in `starts`."""
        if name == RANDOM:
            return Encoder(
                dataset.format.channels, dataset.format.size, **self.settings({"encoder": Encoder})["encoder"]
            )
        return self.given(name, dataset.format)

    def given(self, name: str, format: ImageFormat) -> Encoder:
        """One with the weights of a name in `starts`, which need not have been scanned yet."""
        return given(Start(**self.settings({f"starts.{name}": Start})[f"starts.{name}"]), format, None)

    def extract(self, cost: Cost, what: str, count: int, name: str, dataset: Dataset | None = None) -> None:
        """Add the features of so many images by the encoder of that name, measured once."""
        dataset = dataset or self.images.dataset
        key = ("extraction", name, str(dataset.format.size))
        if key not in self.rates:
            encoder, own = self.encoder(name, dataset), self.settings({"extract": extract})["extract"]
            rows = np.arange(len(dataset))

            def work(count: int) -> None:
                extract(encoder, dataset, np.resize(rows, count), self.device, **own)

            most = own.get("batch_size", 256)
            self.rates[key], taken = rate(work, most, self.device)
            self.rates[*key, "grown"], self.rates[*key, "gpu"] = taken.grown, taken.gpu
        cost.spend(what, count * self.rates[key])
        cost.ram = max(cost.ram, self.starts[NETWORKS].ram + round(self.rates[*key, "grown"]))
        cost.gpu = max(cost.gpu, round(self.rates[*key, "gpu"]))

    def start(self, method: str = "") -> str:
        """What a method for images starts from, or those do that have no setting of their own."""
        return lookup(self.content, f"methods.{method}.start", over="start").get("weights", RANDOM)


def rate(work: Callable[[int], None], most: int, device: torch.device) -> tuple[float, Taken]:
    """Seconds for each of `n` in `work(n)`, of ever more, up to `most`, as long as there is time; and the last of
    them."""
    count = min(SMALLEST, most)
    work(count)  # the first time, memory is found and kernels are chosen
    left = SECONDS
    while True:
        with taking(device) as taken:
            work(count)
        left -= taken.seconds
        if count >= most or 4 * taken.seconds > left:
            break
        count = min(4 * count, most)
    spent, rounds = taken.seconds, 1
    while left > taken.seconds:
        with taking(device) as again:
            work(count)
        spent, rounds, left = spent + again.seconds, rounds + 1, left - again.seconds
    return spent / rounds / count, taken
