"""How much an encoder knows of what is where: the classes of pixels learnt on its maps from a few annotated images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, MinLen

from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.data.truth import Truth
from sslflow.dense.masks.pixels import Batches, classes_in, pixel_loss, tested
from sslflow.dense.masks.scores import Scores
from sslflow.dense.masks.segmenter import Segmenter
from sslflow.dense.protocols import PROTOCOLS, Protocol
from sslflow.dense.rows import FEWEST, annotated_shares, annotated_subset
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import MemoryFormat, Precision, place
from sslflow.runtime.rng import derive
from sslflow.settings.params import Count, Fraction, NonNegative, Rate
from sslflow.training.few import Learnt, encoder_groups, learn_few
from sslflow.views.places import PlacedView
from sslflow.views.strengths import Share

FRACTIONS = (0.01, 0.1)


@dataclass(frozen=True)
class Segmented:
    """What came of one protocol with one share of the annotated images."""

    protocol: Protocol
    fraction: float
    """Share of the annotated training images that was really used, to two digits."""
    images: int
    """Annotated images that were trained on."""
    covered: tuple[int, ...]
    """Classes that a pixel of these is of: no other can be predicted."""
    steps: int
    loss: float
    """Mean training loss over the last tenth of the steps."""
    scores: Scores
    """Of the annotated test images, looked at once, after the last step."""
    masks: dict[int, np.ndarray]
    """What was predicted for some of them, by row, uint8 `(size, size)`."""
    model: Segmenter
    """In evaluation mode, on the CPU."""


def segment(
    make_encoder: Callable[[], Encoder],
    dataset: Dataset,
    device: torch.device,
    seed: int,
    protocols: Sequence[Protocol] = PROTOCOLS,
    from_scratch: bool = False,
    *,
    fractions: Annotated[tuple[Share, ...], MinLen(1)] = FRACTIONS,
    width: Count = 32,
    epochs: Count = 20,
    min_steps: Count = 400,
    batch_size: Annotated[int, Ge(2)] = 16,
    linear_lr: Rate = 1e-2,
    lr: Rate = 1e-2,
    encoder_lr: Rate = 3e-3,
    scratch_lr: Rate = 1e-2,
    layer_decay: Share = 1.0,
    weight_decay: NonNegative = 1e-2,
    warmup: Fraction = 0.1,
    smallest: Share = 0.5,
    flip: Fraction = 0.5,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> Iterator[Segmented]:
    """Learn the classes of pixels by each of the protocols from each of the `fractions` of the annotated training
    images, and test it; a fraction that comes to the same images as an earlier one is left out.

    - `linear`: one linear layer on the frozen maps of all of an encoder's stages, of images as they are; at
      `linear_lr`.
    - `frozen`: a decoder of so much `width` on the frozen maps; at `lr`.
    - `tuned`: the decoder, and the encoder along with it, at `encoder_lr`; with a `layer_decay` below 1 each layer, as
      timm counts them, with so much of the rate of the layer above it (arXiv:2106.08254).

    The loss is the mean cross-entropy over the pixels that are not ignored. AdamW, warm-up and cosine, `epochs` over
    the chosen images, but `min_steps` at least; `smallest` and `flip` as in `PlacedView`. Images, their order and their
    views depend on the seed alone, and are the same for every encoder. Nothing is chosen by a look at test images.

    `from_scratch` is the control: an encoder with random weights (which `make_encoder` must give), that learns at
    `scratch_lr`, in all layers alike.

    Raises `ValueError` where there is too little to learn from, an encoder makes no maps, or the loss becomes NaN or
    infinite.
    """
    truth = require_masks(dataset)
    test = dataset.annotated_rows(TEST, "mask")
    tuned, tuned_lr = ("scratch_lr", scratch_lr) if from_scratch else ("encoder_lr", encoder_lr)
    rates = {"linear": "segment.linear_lr", "frozen": "segment.lr", "tuned": f"segment.{tuned} or segment.lr"}

    def trained(protocol: Protocol, rows: np.ndarray) -> tuple[Segmenter, Learnt]:
        encoder = make_encoder()
        # The encoder's making may have taken any number of random numbers; decoders of one shape begin alike.
        torch.manual_seed(derive(seed, "segment"))
        model = Segmenter(encoder, truth.pixel_classes, dataset.format, width=0 if protocol == "linear" else width)
        place(model, device, memory_format)
        model.train()
        groups = [
            {"params": model.decoder.parameters(), "peak": linear_lr if protocol == "linear" else lr},
            *encoder_groups(
                model.encoder, tuned_lr if protocol == "tuned" else None, 1.0 if from_scratch else layer_decay
            ),
        ]
        batches = Batches(dataset, truth, rows, device, precision, memory_format)
        views = PlacedView(dataset.format, smallest=smallest, flip=flip).to(device)
        logits = batches.of_frozen_maps(model) if protocol == "linear" else batches.of_views(model, views)
        learnt = learn_few(
            lambda chosen, _: pixel_loss(*logits(chosen)),
            groups,
            len(rows),
            device,
            seed,
            "segment",
            epochs=epochs,
            min_steps=min_steps,
            batch_size=batch_size,
            weight_decay=weight_decay,
            warmup=warmup,
            what=f"segmentation, {protocol}",
            rates=rates[protocol],
        )
        return model, learnt

    for used, fraction in annotated_shares(dataset, "mask", fractions).items():
        rows = annotated_subset(dataset, "mask", fraction, seed)
        covered = classes_in(truth, rows)
        if not covered:
            raise ValueError(
                f"segment.fractions: in the masks of {fraction:g} of the images ({len(rows)}) every pixel is ignored; "
                "take more images"
            )
        for protocol in protocols:
            model, learnt = trained(protocol, rows)
            scores, masks = tested(model, dataset, truth, test, device, batch_size, precision, memory_format)
            yield Segmented(protocol, used, len(rows), covered, learnt.steps, learnt.loss, scores, masks, model.cpu())


def require_masks(dataset: Dataset) -> Truth:
    """Where the classes of pixels are known. Raises `ValueError` where there is too little to learn from and to test
    on."""
    truth, counts = dataset.truth, [len(dataset.annotated_rows(split, "mask")) for split in ("train", TEST)]
    if truth is None or not all(counts):
        raise ValueError("segmentation needs images with masks to train on and to test on, and there are none")
    if counts[0] < FEWEST:
        raise ValueError(
            f"segmentation needs {FEWEST} training images with masks at least, and there is one: annotate more, or set "
            "run.segment and run.segment_controls to []"
        )
    if len(truth.pixel_classes) < 2:
        raise ValueError(
            f"segmentation needs two classes of pixels at least, and there is only {', '.join(truth.pixel_classes)}: "
            "name what else there is, such as the background, or set run.segment and run.segment_controls to []"
        )
    return truth
