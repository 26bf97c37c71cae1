"""How fast augmentation and encoder are here, in each precision and memory format: advice, never a choice."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import get_args

import torch
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.runtime.device import MemoryFormat, Precision, autocast, laid_out, place
from sslflow.views.images import Views

WORTHWHILE = 1.1
"""A choice that is faster by less than this factor is not suggested: on a busy machine it may be noise."""
FEWEST = 8
ROUNDS = 4

Choice = tuple[Precision, MemoryFormat]


@dataclass(frozen=True)
class Rates:
    """Images a second, round by round: views made, and forward and backward passes by precision and memory format."""

    views: list[float]
    encoder: dict[Choice, list[float]]

    def of(self, precision: Precision, memory_format: MemoryFormat) -> float:
        """The encoder's median rate; 0.0 for a choice that this device can't do."""
        return statistics.median(self.encoder.get((precision, memory_format), [0.0]))

    @property
    def view_rate(self) -> float:
        """Views a second, the median."""
        return statistics.median(self.views)

    def metrics(self) -> dict[str, float]:
        """Medians as a flat dict: `views`, `encoder_fp32_channels_last`, …, all in images a second."""
        return {"views": self.view_rate, **{"encoder_" + "_".join(choice): self.of(*choice) for choice in self.encoder}}

    def faster(self, precision: Precision, memory_format: MemoryFormat) -> Choice | None:
        """The fastest choice, if it is worth leaving the present one for it: clearly faster, and so in every round."""
        best = max(self.encoder, key=lambda choice: self.of(*choice))
        present = self.encoder.get((precision, memory_format), [0.0])
        clear = self.of(*best) > WORTHWHILE * self.of(precision, memory_format)
        return best if clear and min(self.encoder[best]) > max(present) else None


def measure(
    views: Views,
    encoder: nn.Module,
    fields: Fields,
    seconds: float,
    dimensions: int = 4,
) -> Rates:
    """Time both on what a data set holds, on the device, in about `seconds` in all; `dimensions` are those of
    what the encoder sees.

    As many of the examples are used as the time allows, at least 8, since small batches are slow. What is compared
    takes turns, so that another program that slows the machine for a while slows them all. A precision that the device
    can't do is left out. The encoder's weights are not changed, but the statistics of its norms are.
    """
    device = fields.device
    choices = [choice for choice in product(get_args(Precision), get_args(MemoryFormat)) if _able(device, choice[0])]
    turn = seconds / (1 + len(choices)) / (ROUNDS + 1)
    encoder.train()

    def make(batch: Fields) -> None:
        views(batch)

    def step(choice: Choice, batch: Tensor) -> None:
        with autocast(device, choice[0]):
            features = encoder(batch)
        features.float().square().mean().backward()
        encoder.zero_grad(set_to_none=True)

    def ready(choice: Choice, batch: Tensor) -> Tensor:
        place(encoder, device, choice[1])
        return laid_out(batch, choice[1])

    def slowest(batch: Tensor) -> float:
        return max(_seconds(lambda c=choice: step(c, ready(c, batch)), device) for choice in choices)

    seen = views(fields)
    made, view, count = len(views.shown(seen)), seen[0].flatten(0, -dimensions)[: len(fields)], min(FEWEST, len(fields))
    slowest(view[:count])  # the first time, memory is found and kernels are chosen
    while count < len(view) and 2 * slowest(view[:count]) < turn:
        count = min(2 * count, len(view))
    batch = view[:count]
    rates: dict[Choice, list[float]] = {choice: [] for choice in choices}
    making: list[float] = []
    for _ in range(ROUNDS):
        making.append(made * len(batch) / _seconds(lambda: make(fields[: len(batch)]), device))
        for choice in choices:
            prepared = ready(choice, batch)
            step(choice, prepared[:FEWEST])
            rates[choice].append(len(batch) / _seconds(lambda c=choice, b=prepared: step(c, b), device))
    return Rates(making, rates)


def _able(device: torch.device, precision: Precision) -> bool:
    try:
        autocast(device, precision)
    except ValueError:
        return False
    return True


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
