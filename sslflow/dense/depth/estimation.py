"""How much an encoder knows of how far away things are: depth learnt on its maps from a few depth maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.depth import FIELD, DepthFacts
from sslflow.data.normalise import Normalise
from sslflow.data.splits import TEST
from sslflow.dense.depth.estimator import DepthEstimator
from sslflow.dense.depth.scores import errors_of
from sslflow.dense.protocols import Protocol
from sslflow.dense.rows import annotated_shares, annotated_subset
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import MemoryFormat, Precision, autocast, layout, place
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Count, Fraction, NonNegative, Rate
from sslflow.training.few import encoder_groups, learn_few
from sslflow.training.log_depth import scale_invariant
from sslflow.views.depth import DepthView
from sslflow.views.strengths import Colour, Crop, Share

PROTOCOLS: tuple[Protocol, ...] = ("frozen", "tuned")
"""A decoder on an encoder that is frozen; the same with the encoder trained along."""
FRACTIONS = (0.01, 0.1)
SHOWN = 200
"""Test images, at most, whose predicted maps are kept."""
PART = 256
"""Depth maps that are read at a time."""


@dataclass(frozen=True)
class Estimated:
    """What came of one protocol with one share of the depth maps to train on."""

    protocol: str
    fraction: float
    """Share of the images to train on with a depth map that was really used, to two digits."""
    images: int
    loss: float
    """Mean training loss over the last tenth of the steps; 0 where nothing is trained."""
    steps: int
    errors: np.ndarray
    """`ERRORS` of each test image with a depth map, float64 `(n, 4)`."""
    maps: dict[int, np.ndarray]
    """What was predicted for some of them, by row, metres, float32 `(size, size)`."""
    model: DepthEstimator | None = None
    """In evaluation mode, on the CPU; None where nothing is trained."""


def estimate_depth(
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
    lr: Rate = 1e-2,
    encoder_lr: Rate = 3e-3,
    scratch_lr: Rate = 1e-2,
    layer_decay: Share = 1.0,
    weight_decay: NonNegative = 1e-2,
    warmup: Fraction = 0.1,
    smallest: Share = 0.5,
    flip: Fraction = 0.5,
    invariance: Fraction = 0.5,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> Iterator[Estimated]:
    """Learn depth by each of the protocols from each of the `fractions` of the images to train on that have a depth
    map, and test it; a fraction that comes to the same images as an earlier one is left out.

    - `frozen`: a decoder of so much `width` on the frozen maps of all of an encoder's stages; at `lr`.
    - `tuned`: the decoder, and the encoder along with it, at `encoder_lr`, with `layer_decay` as for `segment`.

    The loss is `scale_invariant` of log depth. AdamW, warm-up and cosine, `epochs` over the chosen images, but
    `min_steps` at least; `smallest`, the share of the area that a crop has at least, and `flip` as in `DepthView`.
    Images, their order and their views depend on the seed alone, and are the same for every encoder. Nothing is chosen
    by a look at test images.

    `from_scratch` is the control: an encoder with random weights (which `make_encoder` must give), that learns at
    `scratch_lr`, in all layers alike.

    Raises `ValueError` where an encoder makes no maps, or the loss becomes NaN or infinite.
    """
    name, tuned_lr = ("scratch_lr", scratch_lr) if from_scratch else ("encoder_lr", encoder_lr)
    colour = Colour(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, grey=0.0)
    views = DepthView(dataset.format, crop=Crop(smallest), flip=flip, colour=colour).to(device)
    for used, fraction in annotated_shares(dataset, FIELD, fractions).items():
        rows = annotated_subset(dataset, FIELD, fraction, seed)
        facts = facts_of(dataset, rows)
        for protocol in protocols:
            encoder = make_encoder()
            # The encoder's making may have taken any number of random numbers; decoders of one shape begin alike.
            torch.manual_seed(derive(seed, "depth"))
            model = DepthEstimator(encoder, facts, dataset.format, width=width)
            place(model, device, memory_format)
            model.train()
            peak = tuned_lr if protocol == "tuned" else None
            groups = [
                {"params": model.decoder.parameters(), "peak": lr},
                *encoder_groups(model.encoder, peak, 1.0 if from_scratch else layer_decay),
            ]

            def loss_of(chosen: Tensor, _: int, model: DepthEstimator = model, rows: np.ndarray = rows) -> Tensor:
                images, maps, _ = views(dataset.read(rows[chosen.numpy()]).to(device))
                with autocast(device, precision):
                    told = model(images.contiguous(memory_format=layout(memory_format)))
                return scale_invariant(told, DepthFacts.logs(maps), (maps > 0).float(), invariance)

            learnt = learn_few(
                loss_of,
                groups,
                len(rows),
                device,
                seed,
                "depth",
                epochs=epochs,
                min_steps=min_steps,
                batch_size=batch_size,
                weight_decay=weight_decay,
                warmup=warmup,
                what=f"depth, {protocol}",
                rates=f"depth.{name} or depth.lr" if protocol == "tuned" else "depth.lr",
            )
            errors, maps = tested(predictor(model, dataset, device, precision, memory_format), dataset, batch_size)
            yield Estimated(protocol, used, len(rows), learnt.loss, learnt.steps, errors, maps, model.cpu())


def mean_maps(dataset: Dataset, seed: int, fractions: Sequence[float], batch_size: int = 16) -> Iterator[Estimated]:
    """The control that looks at no image: for each pixel the mean of the logarithm of its depth in the images to train
    on of each share, where it is known in none, their mean over all pixels."""
    for used, fraction in annotated_shares(dataset, FIELD, fractions).items():
        rows = annotated_subset(dataset, FIELD, fraction, seed)
        sums, counts = np.zeros((2, 1, dataset.format.size, dataset.format.size))
        for part in np.array_split(rows, -(-len(rows) // PART)):
            maps = dataset.read(part)[FIELD]
            sums += DepthFacts.logs(maps).double().sum(dim=0).numpy()
            counts += (maps > 0).sum(dim=0).numpy()
        usual = np.where(counts > 0, sums / np.maximum(counts, 1), facts_of(dataset, rows).mean_log)
        told = torch.from_numpy(np.exp(usual)).float()
        errors, maps = tested(lambda part, told=told: told.expand(len(part), -1, -1, -1), dataset, batch_size)
        yield Estimated("mean", used, len(rows), 0.0, 0, errors, maps)


def facts_of(dataset: Dataset, rows: np.ndarray) -> DepthFacts:
    """Of the depth maps of these rows alone: a share of the maps is not to know of the others."""
    sums = np.zeros(3)
    for part in np.array_split(rows, -(-len(rows) // PART)):
        maps = dataset.read(part)[FIELD]
        logs = maps[maps > 0].double().log()
        sums += [len(logs), float(logs.sum()), float(logs.square().sum())]
    mean = sums[1] / sums[0]
    return DepthFacts(mean, max(sums[2] / sums[0] - mean**2, 1e-6) ** 0.5)


def predictor(
    model: DepthEstimator, dataset: Dataset, device: torch.device, precision: Precision, memory_format: MemoryFormat
) -> Callable[[np.ndarray], Tensor]:
    """Rows to depth in metres, `(n, 1, s, s)`, on the CPU."""
    normalise = Normalise(dataset.format.mean, dataset.format.std).to(device)
    model.eval()

    @torch.no_grad()
    def told(rows: np.ndarray) -> Tensor:
        images = normalise(dataset.read(rows)["images"].to(device)).contiguous(memory_format=layout(memory_format))
        with autocast(device, precision):
            return model(images).exp().cpu()

    return told


def tested(
    told: Callable[[np.ndarray], Tensor], dataset: Dataset, batch_size: int
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """`ERRORS` of the test images with a depth map, and the predictions for at most `SHOWN` of them."""
    rows = dataset.annotated_rows(TEST, FIELD)
    shown = set(rows[permutation(len(rows), 0, "shown").numpy()[:SHOWN]].tolist())
    errors, maps = [], {}
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        predicted = told(part)
        errors.append(errors_of(predicted, dataset.read(part)[FIELD]).numpy())
        maps |= {row: one[0].numpy() for row, one in zip(part.tolist(), predicted, strict=True) if row in shown}
    return np.concatenate(errors), maps
