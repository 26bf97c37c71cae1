"""An encoder and a linear classifier trained together on a few labelled images; what a user would do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from sslflow.data.dataset import Dataset
from sslflow.data.normalise import Normalise
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.efficiency import Few, Share, draws_of
from sslflow.evaluation.labels import labelled_subset, shares
from sslflow.evaluation.named import PseudoLabels, labelled_by
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import MemoryFormat, Precision, autocast, layout, place
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Count, Fraction, NonNegative, Rate
from sslflow.training.few import encoder_groups, learn_few
from sslflow.views.images import CropView

FRACTIONS = (0.1, 0.01)
DRAWS = 3


@dataclass(frozen=True)
class Tuned:
    """What came of one share of the labels, or of a few labels of every class."""

    fraction: float
    """Share of the labels that was really used, to two digits: one of each class at least, and whole images."""
    labels: int
    """Labelled images that were trained on."""
    steps: int
    loss: float
    """Mean training loss over the last tenth of the steps."""
    predicted: tuple[int, ...]
    """Classes of the labelled test images, looked at once, after the last step."""
    accuracy: float
    """Share of these that are right."""
    each: int = 0
    """Labels of every class; 0 where a share of all was asked for."""
    draw: int = 0
    """Number of the draw of these."""
    pseudolabels: int = 0
    """Images beside these that were trained on with the label of their cluster."""


class Classifier(nn.Module):
    """An encoder and a linear layer on its features, brought to one scale first, so that one learning rate suits
    encoders whose features differ in size."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.BatchNorm1d(encoder.dim, affine=False), nn.Linear(encoder.dim, classes))
        nn.init.zeros_(self.head[1].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.head[1].bias)  # pyright: ignore[reportArgumentType]

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(n, classes)` of normalised images."""
        return self.head(self.encoder(images))


def finetune(
    make_encoder: Callable[[], Encoder],
    dataset: Dataset,
    device: torch.device,
    seed: int,
    from_scratch: bool = False,
    pseudo: PseudoLabels | None = None,
    *,
    fractions: tuple[Share, ...] = FRACTIONS,
    each: tuple[Count, ...] = (),
    draws: Count = DRAWS,
    epochs: Count = 10,
    min_steps: Count = 200,
    batch_size: Annotated[int, Ge(2)] = 32,
    lr: Rate = 3e-3,
    encoder_lr: Rate = 1e-3,
    scratch_lr: Rate = 1e-2,
    layer_decay: Share = 1.0,
    weight_decay: NonNegative = 1e-2,
    warmup: Fraction = 0.1,
    shift: Fraction = 0.04,
    flip: Fraction = 0.5,
    pseudolabels_above: Fraction = 1.0,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> Iterator[Tuned]:
    """Fine-tune a fresh encoder on each of the `fractions` of the labelled training images, and test it; one that comes
    to the same images as an earlier one is left out. Then, for each number in `each`, on so many labels of every class,
    in so many `draws` of images: those that the probes on few labels are fitted on.

    The images chosen depend on the seed alone, so every method meets the same ones; a smaller share is part of a larger
    one. AdamW, `lr` for the classifier and `encoder_lr` for the encoder, warm-up and cosine; `epochs` over the chosen
    images, but `min_steps` at least; `shift` and `flip` as in `CropView`. With a `layer_decay` below 1 each layer of
    the encoder, as timm counts them, learns with so much of the rate of the layer above it (arXiv:2106.08254). Nothing
    is chosen by a look at test images.

    `from_scratch` is the control that pretraining has to beat: an encoder with random weights (which `make_encoder`
    must give) under the same labels, steps and views. Its learning rate is `scratch_lr`: random weights have far
    to go, and with the small `encoder_lr`, which keeps what was learnt in pretraining, they would hardly move and
    be a control that anything beats; nor do its layers differ in their rates.

    Where `pseudo` is given, each cluster is named by the majority of the chosen images in it, and images to pretrain on
    whose confidence is above `pseudolabels_above` (1: none) are trained on as well: each batch holds as many of them as
    of labelled images, and they count as much. Labelled images, steps and rates are as without.

    Raises `ValueError` where there are no labels or the loss becomes NaN or infinite.
    """
    if not dataset.labelled:
        raise ValueError("fine-tuning needs labelled images to train on and to test on, and there are none")
    everything = len(dataset.labelled_rows(TRAIN))
    asked = [
        (f"finetune.fractions: {fraction:g} of the labels", labelled_subset(dataset, fraction, seed), used, 0, 0)
        for used, fraction in shares(dataset, fractions).items()
    ]
    for _, number, draw, rows in draws_of(dataset, Few(each=each, shares=(), draws=draws)):
        said = f"finetune.each: {number} of every class, of which there is one,"
        asked.append((said, rows, float(f"{len(rows) / everything:.2g}"), number, draw))
    tuned, tuned_lr = ("scratch_lr", scratch_lr) if from_scratch else ("encoder_lr", encoder_lr)

    def tuned_on(rows: np.ndarray, used: float, of_each: int, draw: int) -> Tuned:
        torch.manual_seed(derive(seed, "finetune"))
        model = Classifier(make_encoder(), len(dataset.classes))
        place(model, device, memory_format)
        views = CropView(dataset.format, shift=shift, flip=flip).to(device)
        model.train()
        groups = [
            {"params": model.head.parameters(), "peak": lr},
            *encoder_groups(model.encoder, tuned_lr, 1.0 if from_scratch else layer_decay),
        ]
        labels = torch.from_numpy(dataset.labels[rows])
        more, called = np.empty(0, np.int64), labels[:0]
        if pseudo is not None and pseudolabels_above < 1:
            known = dataset.labels[rows]
            # A picture that is trained on with its label may be in the pool as well.
            paths = dataset.column("path")
            others = dataset.pretraining_rows[~np.isin(paths[dataset.pretraining_rows], paths[rows])]
            more, names = labelled_by(pseudo, others, rows, known, len(dataset.classes), pseudolabels_above)
            called = torch.from_numpy(names)

        def loss_of(chosen: Tensor, step: int) -> Tensor:
            batch, answers = rows[chosen.numpy()], labels[chosen]
            if len(more):
                beside = _in_turn(len(more), step, len(chosen), seed)
                batch, answers = np.concatenate([batch, more[beside.numpy()]]), torch.cat([answers, called[beside]])
            (seen,) = views(dataset.read(batch).to(device))
            with autocast(device, precision):
                logits = model(seen.contiguous(memory_format=layout(memory_format)))
            return F.cross_entropy(logits.float(), answers.to(device))

        learnt = learn_few(
            loss_of,
            groups,
            len(rows),
            device,
            seed,
            "finetune",
            epochs=epochs,
            min_steps=min_steps,
            batch_size=batch_size,
            weight_decay=weight_decay,
            warmup=warmup,
            what="fine-tuning",
            rates=f"finetune.{tuned} or finetune.lr",
        )
        test = dataset.labelled_rows(TEST)
        predicted = _predicted(model, dataset, test, device, batch_size, precision, memory_format)
        accuracy = float((predicted == dataset.labels[test]).mean())
        return Tuned(
            used,
            len(rows),
            learnt.steps,
            learnt.loss,
            tuple(predicted.tolist()),
            accuracy,
            of_each,
            draw,
            pseudolabels=len(more),
        )

    for said, rows, used, of_each, draw in asked:
        if len(rows) < 2:  # normalisation over a batch needs more than one
            raise ValueError(f"{said} is a single image; take more labels")
        yield tuned_on(rows, used, of_each, draw)


def _in_turn(count: int, step: int, size: int, seed: int) -> Tensor:
    """Which of `count` images a step sees, int64 `(size,)`: all of them in a random order, then again in another."""
    first, last = step * size // count, ((step + 1) * size - 1) // count
    orders = torch.cat([permutation(count, seed, "finetune", "beside", turn) for turn in range(first, last + 1)])
    return orders[step * size - first * count :][:size]


def metric_name(fraction: float) -> str:
    """How the accuracy with a share of the labels is named: `finetune_10pct` for 0.1, `finetune_0.5pct` for 0.005."""
    return f"finetune_{100 * fraction:g}pct"


@torch.no_grad()
def _predicted(
    model: Classifier,
    dataset: Dataset,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int,
    precision: Precision,
    memory_format: MemoryFormat,
) -> np.ndarray:
    normalise = Normalise(dataset.format.mean, dataset.format.std).to(device)
    model.eval()
    found = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        images = normalise(dataset.read(batch)["images"].to(device)).contiguous(memory_format=layout(memory_format))
        with autocast(device, precision):
            found.append(model(images).argmax(dim=1).cpu())
    return torch.cat(found).numpy()
