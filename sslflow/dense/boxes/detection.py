"""How much an encoder knows of what is where: things found by a detector on its maps, learnt from a few annotated
images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.normalise import Normalise
from sslflow.data.splits import TEST, TRAIN
from sslflow.data.truth import Truth
from sslflow.dense.average_precision import Detections, average_precision, matched
from sslflow.dense.protocols import PROTOCOLS as EVERY
from sslflow.dense.protocols import Protocol
from sslflow.dense.rows import FEWEST, annotated_shares, annotated_subset
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import MemoryFormat, Precision, autocast, layout, place
from sslflow.runtime.rng import derive
from sslflow.settings.params import Count, Fraction, NonNegative, Rate
from sslflow.training.few import Learnt, encoder_groups, learn_few
from sslflow.views.places import PlacedView
from sslflow.views.strengths import Share

if TYPE_CHECKING:
    from sslflow.dense.boxes.detector import Detector

# torchvision is imported where a detector is built, as is timm: to check settings nobody needs it.

PROTOCOLS = EVERY[1:]
"""There is no linear one."""
FRACTIONS = (0.01, 0.1)


@dataclass(frozen=True)
class Detected:
    """What came of one protocol with one share of the annotated images."""

    protocol: Protocol
    fraction: float
    """Share of the annotated training images that was really used, to two digits."""
    images: int
    """Annotated images that were trained on."""
    things: tuple[int, ...]
    """Of each class, the things in these, without ignored ones."""
    steps: int
    loss: float
    """Mean training loss over the last tenth of the steps."""
    found: Detections
    """In the annotated test images, looked at once, after the last step."""
    mean: float
    """mAP of these."""
    at_half: float
    """mAP50 of these."""
    detector: Detector
    """In evaluation mode, on the CPU."""


def detect(
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
    min_steps: Count = 600,
    batch_size: Annotated[int, Ge(2)] = 8,
    lr: Rate = 3e-3,
    encoder_lr: Rate = 1e-3,
    scratch_lr: Rate = 3e-3,
    layer_decay: Share = 1.0,
    weight_decay: NonNegative = 1e-2,
    warmup: Fraction = 0.1,
    smallest: Share = 0.5,
    flip: Fraction = 0.5,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> Iterator[Detected]:
    """Learn to find things by each of the protocols from each of the `fractions` of the annotated training images, and
    test it; a fraction that comes to the same images as an earlier one is left out.

    - `frozen`: a pyramid and heads of so much `width` on the frozen maps; at `lr`.
    - `tuned`: the same, and the encoder along with them, at `encoder_lr`; with a `layer_decay` below 1 each layer, as
      timm counts them, with so much of the rate of the layer above it (arXiv:2106.08254).

    The loss is RetinaNet's: focal for classes, L1 for boxes. AdamW, warm-up and cosine, `epochs` over the chosen
    images, but `min_steps` at least; `smallest` and `flip` as in `PlacedView`. Images, their order and their views
    depend on the seed alone, and are the same for every encoder. Nothing is chosen by a look at test images.

    `from_scratch` is the control: an encoder with random weights (which `make_encoder` must give), that learns at
    `scratch_lr`, in all layers alike.

    Raises `ValueError` where there is too little to learn from, an encoder makes no maps, or the loss becomes NaN or
    infinite.
    """
    from sslflow.dense.boxes.detector import Detector

    truth = require_boxes(dataset)
    test = dataset.annotated_rows(TEST, "boxes")
    known = truth.things(test)
    tuned, tuned_lr = ("scratch_lr", scratch_lr) if from_scratch else ("encoder_lr", encoder_lr)
    rates = {"frozen": "detect.lr", "tuned": f"detect.{tuned} or detect.lr"}

    def trained(protocol: Protocol, rows: np.ndarray) -> tuple[Detector, Learnt]:
        encoder = make_encoder()
        # The encoder's making may have taken any number of random numbers; heads of one shape begin alike.
        torch.manual_seed(derive(seed, "detect"))
        model = Detector(encoder, truth.thing_classes, dataset.format, width=width)
        place(model, device, memory_format)
        model.train()
        inner = set(model.encoder.parameters())
        groups = [
            {"params": [weights for weights in model.parameters() if weights not in inner], "peak": lr},
            *encoder_groups(
                model.encoder, tuned_lr if protocol == "tuned" else None, 1.0 if from_scratch else layer_decay
            ),
        ]
        views = PlacedView(dataset.format, smallest=smallest, flip=flip).to(device)

        def loss_of(chosen: Tensor, _: int) -> Tensor:
            batch = rows[chosen.numpy()]
            images, boxes = dataset.read(batch)["images"].to(device), truth.boxes(batch).to(device)
            seen, _, placed = views(images, None, boxes)
            assert placed is not None
            with autocast(device, precision):
                terms = model(seen.contiguous(memory_format=layout(memory_format)), targets_of(placed))
            return terms["classification"] + terms["bbox_regression"]

        learnt = learn_few(
            loss_of,
            groups,
            len(rows),
            device,
            seed,
            "detect",
            epochs=epochs,
            min_steps=min_steps,
            batch_size=batch_size,
            weight_decay=weight_decay,
            warmup=warmup,
            what=f"detection, {protocol}",
            rates=rates[protocol],
        )
        return model, learnt

    for used, fraction in annotated_shares(dataset, "boxes", fractions).items():
        rows = annotated_subset(dataset, "boxes", fraction, seed)
        things = _counted(truth, rows)
        if not sum(things):
            raise ValueError(
                f"detect.fractions: in {fraction:g} of the images with boxes ({len(rows)}) there is nothing to be "
                "found; take more images"
            )
        for protocol in protocols:
            model, learnt = trained(protocol, rows)
            found = detections(model, dataset, test, device, batch_size, precision, memory_format)
            mean, at_half = (one.item() for one in average_precision(matched(known, found, len(truth.thing_classes))))
            yield Detected(
                protocol, used, len(rows), things, learnt.steps, learnt.loss, found, mean, at_half, model.cpu()
            )


def require_boxes(dataset: Dataset) -> Truth:
    """Where things are known. Raises `ValueError` where there is too little to learn from and to test on."""
    truth, counts = dataset.truth, [len(dataset.annotated_rows(split, "boxes")) for split in (TRAIN, TEST)]
    if truth is None or not all(counts):
        raise ValueError("detection needs images with boxes to train on and to test on, and there are none")
    mend = "annotate more, or set run.detect and run.detect_controls to []"
    if counts[0] < FEWEST:
        raise ValueError(f"detection needs {FEWEST} training images with boxes at least, and there is one: {mend}")
    for split, done in ((TRAIN, "learn from"), (TEST, "test on")):
        if not sum(_counted(truth, dataset.annotated_rows(split, "boxes"))):
            raise ValueError(
                f"detection has nothing to {done}: in none of the annotated {split} images is there a thing that isn't "
                f"ignored; {mend}"
            )
    return truth


def targets_of(boxes: Fields) -> list[dict[str, Tensor]]:
    """Boxes as `Truth.boxes` and `PlacedView` give them, as a `Detector` wants them."""
    there, aside = boxes["labels"] >= 0, boxes["ignored"]
    return [
        {"boxes": own[known & ~left_out], "labels": labels[known & ~left_out], "ignored": own[known & left_out]}
        for own, labels, known, left_out in zip(boxes["boxes"], boxes["labels"], there, aside, strict=True)
    ]


@torch.no_grad()
def detections(
    model: Detector,
    dataset: Dataset,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int,
    precision: Precision,
    memory_format: MemoryFormat,
) -> Detections:
    """What the detector finds in the images of the rows, batch by batch."""
    normalise = Normalise(dataset.format.mean, dataset.format.std).to(device)
    model.eval()
    found: list[dict[str, Tensor]] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        images = normalise(dataset.read(batch)["images"].to(device)).contiguous(memory_format=layout(memory_format))
        with autocast(device, precision):
            found += model(images)
    boxes, scores, labels = (
        torch.cat([one[name] for one in found]).cpu().numpy() for name in ("boxes", "scores", "labels")
    )
    image = np.repeat(np.arange(len(rows)), [len(one["scores"]) for one in found])
    return Detections(image, labels, scores, boxes)


def _counted(truth: Truth, rows: np.ndarray) -> tuple[int, ...]:
    """Things of each class in the images of the rows, without ignored ones."""
    counts = np.zeros(len(truth.thing_classes), np.int64)
    for one in truth.things(rows):
        counts += np.bincount(one.labels[~one.ignored], minlength=len(counts))
    return tuple(counts.tolist())
