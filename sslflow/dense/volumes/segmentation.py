"""How much an encoder of volumes knows of what is where: the classes of voxels learnt on its maps from a few labelled
blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.normalise import Normalise
from sslflow.data.splits import TEST, TRAIN
from sslflow.data.truth import Truth
from sslflow.dense.masks.pixels import classes_in, pixel_loss
from sslflow.dense.masks.scores import Regions, confusion_of
from sslflow.dense.protocols import PROTOCOLS, Protocol
from sslflow.dense.rows import FEWEST, annotated_shares, annotated_subset
from sslflow.dense.volumes.segmenter import VolumeSegmenter
from sslflow.networks.volumes import VolumeEncoder
from sslflow.runtime.device import MemoryFormat, Precision, autocast, laid_out, place
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Count, Fraction, NonNegative, Rate
from sslflow.training.few import encoder_groups, learn_few
from sslflow.views.strengths import Share
from sslflow.views.volumes import PlacedVolumeView

FRACTIONS = (0.02, 0.1)
SHOWN = 200
"""Test blocks, at most, whose predicted voxels are kept."""


@dataclass(frozen=True)
class Segmented:
    """What came of one protocol with one share of the labelled blocks."""

    protocol: Protocol
    fraction: float
    """Share of the labelled training blocks that was really used, to two digits."""
    images: int
    """Labelled blocks that were trained on."""
    covered: tuple[int, ...]
    """Classes that a voxel of these is of: no other can be predicted."""
    steps: int
    loss: float
    """Mean training loss over the last tenth of the steps."""
    scores: Regions
    """Of the labelled test blocks, looked at once, after the last step."""
    masks: dict[int, np.ndarray]
    """What was predicted for some of them, by row, uint8 `(side, side, side)`."""


def segment_volumes(
    make_encoder: Callable[[], VolumeEncoder],
    dataset: Dataset[Any],
    device: torch.device,
    seed: int,
    protocols: Sequence[Protocol] = PROTOCOLS,
    from_scratch: bool = False,
    *,
    fractions: Annotated[tuple[Share, ...], MinLen(1)] = FRACTIONS,
    width: Count = 16,
    epochs: Count = 20,
    min_steps: Count = 200,
    batch_size: Annotated[int, Ge(2)] = 8,
    linear_lr: Rate = 1e-2,
    lr: Rate = 1e-2,
    encoder_lr: Rate = 3e-3,
    scratch_lr: Rate = 1e-2,
    weight_decay: NonNegative = 1e-2,
    warmup: Fraction = 0.1,
    smallest: Share = 0.5,
    flip: Fraction = 0.5,
    turn: Fraction = 0.0,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> Iterator[Segmented]:
    """Learn the classes of voxels by each of the protocols from each of the `fractions` of the labelled training
    blocks, and test it; a fraction that comes to the same blocks as an earlier one is left out.

    - `linear`: one linear layer on the frozen maps of all of an encoder's stages; at `linear_lr`.
    - `frozen`: a decoder of so much `width` on the frozen maps; at `lr`.
    - `tuned`: the decoder, and the encoder along with it, at `encoder_lr`.

    The loss is the mean cross-entropy over the voxels that are not ignored. AdamW, warm-up and cosine, `epochs` over
    the chosen blocks, but `min_steps` at least; `smallest`, `flip` and `turn` as in `PlacedVolumeView`. Blocks, their
    order and their views depend on the seed alone, and are the same for every encoder. Nothing is chosen by a look at
    test blocks.

    `from_scratch` is the control: an encoder with random weights (which `make_encoder` must give), that learns at
    `scratch_lr`.

    Raises `ValueError` where there is too little to learn from, or the loss becomes NaN or infinite.
    """
    truth = require_tissues(dataset)
    test = dataset.annotated_rows(TEST, "mask")
    tuned, tuned_lr = ("scratch_lr", scratch_lr) if from_scratch else ("encoder_lr", encoder_lr)
    rates = {
        "linear": "segment_volumes.linear_lr",
        "frozen": "segment_volumes.lr",
        "tuned": f"segment_volumes.{tuned} or segment_volumes.lr",
    }
    views = PlacedVolumeView(dataset.format, smallest=smallest, flip=flip, turn=turn).to(device)

    for used, fraction in annotated_shares(dataset, "mask", fractions).items():
        rows = annotated_subset(dataset, "mask", fraction, seed)
        covered = classes_in(truth, rows)
        for protocol in protocols:
            encoder = make_encoder()
            # The encoder's making may have taken any number of random numbers; decoders of one shape begin alike.
            torch.manual_seed(derive(seed, "segment_volumes"))
            model = VolumeSegmenter(encoder, len(truth.pixel_classes), width=0 if protocol == "linear" else width)
            place(model, device, memory_format)
            model.train()
            groups = [
                {"params": model.decoder.parameters(), "peak": linear_lr if protocol == "linear" else lr},
                *encoder_groups(model.encoder, tuned_lr if protocol == "tuned" else None),
            ]

            def loss_of(chosen: Tensor, _: int, model: VolumeSegmenter = model, rows: np.ndarray = rows) -> Tensor:
                batch = rows[chosen.numpy()]
                read = Fields(volumes=dataset.read(batch)["volumes"], tissues=truth.masks(batch)).to(device)
                seen, tissues = views(read)
                with autocast(device, precision):
                    logits = model(laid_out(seen, memory_format))
                return pixel_loss(logits, tissues)

            learnt = learn_few(
                loss_of,
                groups,
                len(rows),
                device,
                seed,
                "segment_volumes",
                epochs=epochs,
                min_steps=min_steps,
                batch_size=batch_size,
                weight_decay=weight_decay,
                warmup=warmup,
                what=f"segmentation of volumes, {protocol}",
                rates=rates[protocol],
            )
            scores, masks = tested(model, dataset, truth, test, device, batch_size, precision, memory_format)
            yield Segmented(protocol, used, len(rows), covered, learnt.steps, learnt.loss, scores, masks)


@torch.no_grad()
def tested(
    model: VolumeSegmenter,
    dataset: Dataset[Any],
    truth: Truth,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int,
    precision: Precision,
    memory_format: MemoryFormat,
) -> tuple[Regions, dict[int, np.ndarray]]:
    """Scores on the blocks of the rows, predicted batch by batch, and the predictions for at most `SHOWN` of them."""
    normalise, classes = Normalise(dataset.format.mean, dataset.format.std).to(device), len(truth.pixel_classes)
    shown = set(rows[permutation(len(rows), 0, "shown").numpy()[:SHOWN]].tolist())
    model.eval()
    found: list[Tensor] = []
    masks: dict[int, np.ndarray] = {}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        volumes = laid_out(normalise(dataset.read(batch)["volumes"].to(device)), memory_format)
        with autocast(device, precision):
            predicted = model(volumes).argmax(dim=1).to(torch.uint8).cpu()
        found.append(confusion_of(predicted, truth.masks(batch), classes))
        masks |= {row: mask for row, mask in zip(batch.tolist(), predicted.numpy(), strict=True) if row in shown}
    each = torch.cat(found)
    parts = (each.diagonal(dim1=1, dim2=2), each.sum(dim=1), each.sum(dim=2), each.sum(dim=0))
    return Regions(*(part.numpy() for part in parts)), masks


def require_tissues(dataset: Dataset[Any]) -> Truth:
    """Where the classes of voxels are known. Raises `ValueError` where there is too little to learn from and to test
    on."""
    truth, counts = dataset.truth, [len(dataset.annotated_rows(split, "mask")) for split in (TRAIN, TEST)]
    if truth is None or not counts[1] or counts[0] < FEWEST:
        raise ValueError(
            f"segmentation needs {FEWEST} blocks with the classes of their voxels to train on and one to test on, and "
            f"found {counts[0]} and {counts[1]}: name label volumes in data.labels, of several patients, or set "
            "run.segment_volumes and run.segment_volumes_controls to []"
        )
    return truth
