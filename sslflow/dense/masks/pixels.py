"""Images with their masks, batch by batch: what a segmenter learns from, and what it is tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.annotated import IGNORED
from sslflow.data.dataset import Dataset
from sslflow.data.normalise import Normalise
from sslflow.data.truth import Truth
from sslflow.dense.decoders import LinearMaps, enlarged
from sslflow.dense.masks.scores import Scores, boundary_of, boundary_width, confusion_of
from sslflow.dense.masks.segmenter import Segmenter
from sslflow.runtime.device import MemoryFormat, Precision, autocast, layout
from sslflow.runtime.rng import permutation
from sslflow.views.places import PlacedView

CACHED = 1e9
"""Bytes of frozen maps that are kept in memory; of more images they are made anew in each step."""
SHOWN = 500
"""Test images, at most, whose predicted masks are kept."""


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored, of logits `(n, classes, s, s)` and masks uint8 `(n, s,
    s)`; 0 where all are."""
    error = F.cross_entropy(logits.float(), masks.long(), ignore_index=IGNORED, reduction="sum")
    return error / (masks != IGNORED).sum().clamp_min(1)


@dataclass(frozen=True)
class Batches:
    """Logits and masks of some of the images that are trained on, by their numbers among `rows`."""

    dataset: Dataset
    truth: Truth
    rows: np.ndarray
    device: torch.device
    precision: Precision
    memory_format: MemoryFormat

    def of_views(self, model: Segmenter, views: PlacedView) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Of images that are cropped, mirrored and coloured anew each time."""

        def logits(chosen: Tensor) -> tuple[Tensor, Tensor]:
            images, masks = self._read(chosen)
            seen, placed, _ = views(images, masks, None)
            assert placed is not None
            with autocast(self.device, self.precision):
                return model(seen.contiguous(memory_format=layout(self.memory_format))), placed

        return logits

    def of_frozen_maps(self, model: Segmenter) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Of images as they are, whose maps never change: they are made once, where they fit into memory, and set the
        normalisation of the linear layer."""
        decoder, form = model.decoder, self.dataset.format
        assert isinstance(decoder, LinearMaps)
        normalise = Normalise(form.mean, form.std).to(self.device)
        fits = len(self.rows) * 4 * sum(map(_size, model.stages.dims, model.stages.across)) <= CACHED

        @torch.no_grad()
        def made(chosen: Tensor) -> list[Tensor]:
            images = normalise(self._read(chosen)[0]).contiguous(memory_format=layout(self.memory_format))
            with autocast(self.device, self.precision):
                return [found.float() for found in model.stages(images)]

        parts, sums = [], [torch.zeros(3, dim, dtype=torch.float64) for dim in model.stages.dims]
        for part in torch.arange(len(self.rows)).split(16):
            parts.append(found := made(part))
            for total, maps in zip(sums, found, strict=True):
                wide = maps.double().cpu().transpose(0, 1).flatten(1)
                total += torch.stack(
                    [torch.full((len(wide),), wide.shape[1]), wide.sum(dim=1), wide.square().sum(dim=1)]
                )
            parts = parts if fits else []
        kept = [torch.cat(same) for same in zip(*parts, strict=True)]
        decoder.normalise_by(sums)
        decoder.eval()

        def logits(chosen: Tensor) -> tuple[Tensor, Tensor]:
            maps = [one[chosen.to(self.device)] for one in kept] or made(chosen)
            masks = self.truth.masks(self.rows[chosen.numpy()]).to(self.device)
            return enlarged(decoder(maps), masks.shape[-2:]), masks

        return logits

    def _read(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.rows[chosen.numpy()]
        return self.dataset.read(rows)["images"].to(self.device), self.truth.masks(rows).to(self.device)


def _size(dim: int, across: int) -> int:
    return dim * across**2


def classes_in(truth: Truth, rows: np.ndarray) -> tuple[int, ...]:
    """The classes that a pixel of these images is of."""
    found: set[int] = set()
    for part in np.array_split(rows, -(-len(rows) // 256)):
        found |= set(truth.masks(part).unique().tolist())
    return tuple(sorted(found - {IGNORED}))


@torch.no_grad()
def tested(
    model: Segmenter,
    dataset: Dataset,
    truth: Truth,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int,
    precision: Precision,
    memory_format: MemoryFormat,
) -> tuple[Scores, dict[int, np.ndarray]]:
    """Scores on the images of the rows, predicted batch by batch, and the predictions for at most `SHOWN` of them."""
    normalise = Normalise(dataset.format.mean, dataset.format.std).to(device)
    classes, width = len(truth.pixel_classes), boundary_width(dataset.format.size)
    shown = set(rows[permutation(len(rows), 0, "shown").numpy()[:SHOWN]].tolist())
    model.eval()
    sums: list[list[Tensor]] = [[], [], []]
    confusion, boundary = torch.zeros(classes, classes, dtype=torch.int64), torch.zeros(2, classes, dtype=torch.int64)
    masks: dict[int, np.ndarray] = {}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        images = normalise(dataset.read(batch)["images"].to(device)).contiguous(memory_format=layout(memory_format))
        with autocast(device, precision):
            predicted = model(images).argmax(dim=1).to(torch.uint8).cpu()
        actual = truth.masks(batch)
        found = confusion_of(predicted, actual, classes)
        for kept, part in zip(sums, (found.diagonal(dim1=1, dim2=2), found.sum(dim=1), found.sum(dim=2)), strict=True):
            kept.append(part)
        confusion += found.sum(dim=0)
        boundary += boundary_of(predicted, actual, classes, width)
        masks |= {row: mask for row, mask in zip(batch.tolist(), predicted.numpy(), strict=True) if row in shown}
    intersection, taken, there = (torch.cat(kept).numpy() for kept in sums)
    return Scores(intersection, taken, there, confusion.numpy(), boundary.numpy()), masks
