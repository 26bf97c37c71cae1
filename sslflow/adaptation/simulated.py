"""Tasks of adaptation that are made of a labelled source alone: half of it plays the target, under other views and with
classes left out, so that bars can be chosen, or checked, without a label of any real target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow.adaptation.has_unknown import FEWEST, Bars, look_for_unknown, second_half
from sslflow.adaptation.inputs import standardised
from sslflow.adaptation.task import UNKNOWN
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.features.extract import extract
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import MemoryFormat, Precision, autocast, layout, place
from sslflow.runtime.rng import generator, permutation
from sslflow.settings.params import Count
from sslflow.views.images import TwoViews
from sslflow.views.strengths import Blur, Colour, Crop

FEWEST_CLASSES = 5
"""Of the source, so that with classes left out on either side three are left to tell apart."""
LEFT_OUT = 0.3
"""Share of the classes that one of the domains lacks."""
OPEN = ("oda", "opda")
"""Settings in which the target shows classes that the source lacks."""
IMAGES = 2000
"""Of the source, at most: with more, bars take longer, and hardly change."""
DRAWS = 2
"""Choices of images and classes for each shift."""
SHIFTS: Mapping[str, Mapping[str, Any]] = {
    "slight": {"crop": Crop(0.8), "colour": Colour(0.2, 0.2, 0.2, 0.05, grey=0.0), "blur": Blur(p=0.0)},
    "medium": {"crop": Crop(0.5), "colour": Colour(0.4, 0.4, 0.4, 0.1, grey=0.2), "blur": Blur(p=0.5)},
    "strong": {"crop": Crop(0.3), "colour": Colour(0.6, 0.6, 0.6, 0.2, grey=0.5), "blur": Blur(1.0, (0.5, 2.0))},
}
"""Settings of the views by which the half that plays the target differs; how far the real target lies, nobody knows."""


@dataclass(frozen=True)
class Simulated:
    """One task, all of whose answers are known."""

    setting: str
    """`cda`, `pda`, `oda` or `opda`, as for real tasks."""
    source: Tensor
    """Features `(m, dim)`."""
    labels: Tensor
    """From 0 on, int64 `(m,)`."""
    target: Tensor
    """Features `(n, dim)`."""
    actual: Tensor
    """As `labels`, or `UNKNOWN`, int64 `(n,)`."""

    @property
    def open(self) -> bool:
        """Whether the target shows classes that the source lacks."""
        return self.setting in OPEN

    @property
    def enough(self) -> bool:
        """Whether there are as many classes and images as the gate needs."""
        return self.classes >= 3 and min(int(second_half(self.labels).sum()), len(self.target)) >= FEWEST

    @property
    def classes(self) -> int:
        """Of the source."""
        return int(self.labels.max()) + 1


def simulated(features: Tensor, shifted: Tensor, labels: Tensor, seed: int) -> Iterator[Simulated]:
    """A task of each setting from features of the source's images `(n, dim)`, those of the same images under a shift,
    and their labels `(n,)`. Which images play the target, and which classes are left out, is drawn by `seed`; none
    where the source has fewer than `FEWEST_CLASSES` classes."""
    numbers = generator(seed, "simulated")
    half = torch.rand(len(labels), generator=numbers).to(labels.device) < 0.5
    held = labels.unique()
    order = held[torch.randperm(len(held), generator=numbers).to(labels.device)]
    if len(order) < FEWEST_CLASSES:
        return
    apart = max(1, round(LEFT_OUT * len(order)))
    unknown, absent = order[:apart], order[-apart:]
    for setting in ("cda", "pda", "oda", "opda"):
        ours, theirs = ~half, half
        if setting in OPEN:
            ours = ours & ~torch.isin(labels, unknown)
        if setting in ("pda", "opda"):
            theirs = theirs & ~torch.isin(labels, absent)
        if not ours.any():
            continue
        held, own = labels[ours].unique(return_inverse=True)
        theirs = theirs & torch.isin(labels, torch.cat([held, unknown]) if setting in OPEN else held)
        if not theirs.any():
            continue
        number = labels.new_full((int(labels.max()) + 1,), UNKNOWN)
        number[held] = torch.arange(len(held), device=labels.device)
        source, target = standardised(features[ours], shifted[theirs])
        yield Simulated(setting, source, own, target, number[labels[theirs]])


def bars_by(closed: Sequence[float], open: Sequence[float]) -> Bars:
    """The bars by the evidence in tasks in which nothing, and in which something is unknown: above all of the former it
    is open, below all of the latter closed; what both had, or neither, leaves it unsure."""
    low, high = sorted([max(closed), min(open)])
    return Bars(high, low)


def bars_of_source(
    encoder: Encoder,
    dataset: Dataset[ImageFormat],
    rows: np.ndarray,
    labels: Tensor,
    device: torch.device,
    *,
    settings: Mapping[str, Any],
    temperature: float = 0.05,
    neighbours: int = 6,
) -> Bars | None:
    """The bars of `look_for_unknown` by tasks simulated with a source's `rows` and their `labels` `(n,)`, whose
    features are worked out with the `settings` of `extract`; None where it has too few classes or images
    to make any."""
    chosen = permutation(len(rows), 0, "bars")[:IMAGES].sort().values
    rows, labels = rows[chosen.numpy()], labels[chosen].to(device)
    features = torch.from_numpy(extract(encoder, dataset, rows, device, **settings)).to(device)
    found: dict[bool, list[float]] = {True: [], False: []}
    for shift in SHIFTS:
        shifted = shifted_features(encoder, dataset, rows, device, shift, **settings)
        for draw in range(DRAWS):
            for task in simulated(features, shifted, labels, draw):
                if task.enough:
                    seen = look_for_unknown(
                        task.source, task.labels, task.target, task.classes, temperature, neighbours
                    )
                    found[task.open].append(seen.evidence)
    return bars_by(found[False], found[True]) if found[False] and found[True] else None


@torch.no_grad()
def shifted_features(
    encoder: Encoder,
    dataset: Dataset[ImageFormat],
    rows: np.ndarray,
    device: torch.device,
    shift: str,
    *,
    batch_size: Count = 256,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> Tensor:
    """Features `(n, dim)` of the rows under the views of `SHIFTS[shift]`, normalised as a domain of their own; the
    settings are those of `extract`."""
    views = TwoViews(dataset.format, **SHIFTS[shift]).to(device)
    place(encoder.eval(), device, memory_format)

    def batches() -> Iterator[Tensor]:
        torch.manual_seed(0)
        for part in np.split(rows, range(batch_size, len(rows), batch_size)):
            yield views(dataset.read(part).to(device))[0]

    with torch.random.fork_rng(devices=[]):
        moments = torch.stack(
            [torch.stack([batch.mean((2, 3)), batch.square().mean((2, 3))]).sum(1) for batch in batches()]
        )
        mean, square = (moments.sum(dim=0) / len(rows))[:, None, :, None, None]
        scale = (square - mean.square()).clamp_min(1e-12).sqrt()
        found = []
        for batch in batches():
            images = ((batch - mean) / scale).contiguous(memory_format=layout(memory_format))
            with autocast(device, precision):
                found.append(encoder(images).float())
        return torch.cat(found)
