"""How long and in which batches to train, by the number of images and the memory there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sslflow.commands.host import Host
from sslflow.networks.starts import RANDOM
from sslflow.settings.params import lookup

CPU, CONTINUE, MICROSCOPY, VIDEOS = "cpu", "continue", "microscopy", "videos"
RESNET, VIT = "photographs-resnet50", "photographs-vit-s"
NAMES = (CONTINUE, CPU, MICROSCOPY, RESNET, VIT, VIDEOS)
"""Recipes for folders of a user's own."""
SMALL, LARGE = (CPU, MICROSCOPY), (RESNET, VIT)
"""Those for a few CPU cores; those from random weights on a GPU."""
SIDES = {CPU: 96, MICROSCOPY: 96, CONTINUE: 224, RESNET: 224, VIT: 224}
"""Pixels that `MEMORY` is for."""
MEMORY = {CPU: 0.03, MICROSCOPY: 0.03, CONTINUE: 0.1, RESNET: 0.1, VIT: 0.125}
"""GiB that an image of a batch takes, with some room; of the last two docs/gpu.md has what was measured."""
CONTINUED = {CPU: (20_000, 1, 10), MICROSCOPY: (20_000, 1, 10), CONTINUE: (100_000, 2, 30)}
"""Images that an encoder with weights is to see over all epochs, and epochs at least and at most: gains come early."""
FROM_RANDOM = {CPU: (40_000, 1, 40), MICROSCOPY: (40_000, 1, 40), CONTINUE: (500_000, 5, 100)}
"""The same for one from random weights."""
PAPERS = 1_280_000
"""Images of ImageNet, for which the papers' epochs are."""
SHORT = 10_000_000
"""With fewer images than that in all epochs, more epochs than the papers'; up to so many times as many:"""
LONGER = 8
ROWS, ROWS_SMALL = 100, 12
"""Rows of the curve to have about; on a CPU a row, with its look at hundreds of images, is dear."""


@dataclass(frozen=True)
class Value:
    """One setting of a recipe, filled in."""

    setting: str
    value: Any
    why: str


def schedule(
    images: int, side: int, host: Host, content: Mapping[str, Any], recipe: str, known: Mapping[str, Any]
) -> Iterator[Value]:
    """Batches that leave steps, epochs that leave time, rates that go with the batch: for so many `images` to train on,
    of which the network sees `side` pixels; `known` are the values so far."""
    methods = known.get("run.methods", lookup(content, "run")["methods"])
    shared, memory = lookup(content, "train"), 0.8 * host.memory if host.gpu else 0.4 * host.memory / len(methods)
    fits = _power(memory / (MEMORY[recipe] * (side / SIDES[recipe]) ** 2))
    most = max(2, min(fits, max(_power(images / 4), min(8, _power(images / 2)))))
    batch = min(shared["batch_size"], most)
    for name in ("", *methods):
        place = f"methods.{name}.train" if name else "train"
        own = lookup(content, place)
        if "batch_size" in own:
            size = min(own["batch_size"], most)
            bound = size == fits < own["batch_size"]
            why = f"what {host.memory:.0f} GiB hold" if bound else f"{images // size:,} steps an epoch"
            yield Value(f"{place}.batch_size", size, why)
        if "epochs" in own:
            weights = lookup(content, f"methods.{name}.start").get("weights", known["start.weights"])
            yield Value(f"{place}.epochs", *_epochs(images, recipe, own["epochs"], weights != RANDOM))
        if recipe in LARGE and "lr" in own and batch < shared["batch_size"] and (not name or "batch_size" not in own):
            rate = float(f"{own['lr'] * batch / shared['batch_size']:.4g}")
            yield Value(
                f"{place}.lr", rate, f"{own['lr']:g} for {shared['batch_size']}, as the batch (arXiv:1706.02677)"
            )
    steps = _epochs(images, recipe, shared["epochs"], known["start.weights"] != RANDOM)[0] * (images // batch)
    often = max(1, steps // (ROWS_SMALL if recipe in SMALL else ROWS))
    yield Value("pretrain.log_every", often, f"{steps // often} rows of the curve in {steps:,} steps")


def _epochs(images: int, recipe: str, own: int, continued: bool) -> tuple[int, str]:
    """Epochs, and why so many."""
    if recipe in LARGE:
        if images * own < SHORT:
            found = min(LONGER * own, round(SHORT / images))
            return found, f"{images:,} images are few: {found * images / 1e6:.2g} million seen"
        found = own if images <= PAPERS else max(1, round(own * PAPERS / images))
        return found, f"the papers', {found * images / 1e6:.3g} million images seen"
    seen, least, most = (CONTINUED if continued else FROM_RANDOM)[recipe]
    found = max(least, min(most, round(seen / images)))
    begun = "what there is to gain comes early" if continued else "from random weights"
    return found, f"{found * images:,} images seen; {begun}"


def _power(number: float) -> int:
    """The largest power of two that is no larger, at least 1."""
    return 1 << max(0, int(number).bit_length() - 1)
