"""Where the things are, found without any label: the place of an image that stands out most on an encoder's maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.normalise import Normalise
from sslflow.data.splits import TEST
from sslflow.data.truth import Things
from sslflow.dense.boxes.detection import require_boxes
from sslflow.networks.encoder import Encoder
from sslflow.networks.stages import Stages
from sslflow.runtime.device import MemoryFormat, layout, place
from sslflow.runtime.rng import permutation

COARSEST = 7
"""Rows of the map that is looked at, at least where the encoder has such a map: as many as the last map of most
networks for photographs has. With fewer, a place is too large a part of the image to be pointed at."""
USUAL = 1024
"""Images that say which vectors are usual: more hardly change their mean."""
BATCH = 64


@dataclass(frozen=True)
class Localised:
    """Of each test image that shows something: one place, and whether there is something."""

    rows: np.ndarray
    """int64 `(n,)`: rows of the images."""
    points: np.ndarray
    """float32 `(n, 2)`: x, y of the place that stands out most on the encoder's map, in prepared pixels."""
    hit: np.ndarray
    """bool `(n,)`: whether it is in the box of a thing."""
    centre: np.ndarray
    """bool `(n,)`: whether the middle of the image is."""
    pixels: np.ndarray
    """bool `(n,)`: whether the pixel is whose colour stands out most in the same way."""
    covered: np.ndarray
    """float64 `(n,)`: how often a random point is."""
    without: int
    """Test images with boxes that were left out since there is nothing to be found in them."""


@torch.no_grad()
def localise(
    encoder: Encoder, dataset: Dataset, device: torch.device, memory_format: MemoryFormat = "channels_last"
) -> Localised:
    """Look for things in the test images whose boxes are known, and see whether they are there.

    A ViT is asked where its last layer attends to. Of another encoder the last map of `COARSEST` rows or more is taken,
    and on it the place that stands out most (`standing_out`); what is usual is learnt from unlabelled images. The same
    is done with the colours of the pixels: encoders are worth asking where they find more than that.

    Raises `ValueError` where no image has boxes, or maps are NaN or infinite.
    """
    truth, rows = require_boxes(dataset), dataset.annotated_rows(TEST, "boxes")
    known = truth.things(rows)
    some = np.array([not one.ignored.all() for one in known], np.bool_)
    rows, things = rows[some], [one for one in known if not one.ignored.all()]
    stages = Stages(encoder)  # before the encoder goes to the device
    place(encoder.eval(), device, memory_format)
    normalise, side = Normalise(dataset.format.mean, dataset.format.std).to(device), dataset.format.size
    learnt_from = dataset.pretraining_rows
    learnt_from = np.sort(learnt_from[permutation(len(learnt_from), 0, "localise").numpy()[:USUAL]])

    def images(chosen: np.ndarray) -> Iterator[Tensor]:
        for start in range(0, len(chosen), BATCH):
            batch = normalise(dataset.read(chosen[start : start + BATCH])["images"].to(device))
            yield batch.contiguous(memory_format=layout(memory_format))

    def points_of(scores: Callable[[Tensor], Tensor]) -> np.ndarray:
        return torch.cat([highest(scores(batch), side) for batch in images(rows)]).cpu().numpy()

    def most_unusual(maps: Callable[[Tensor], Tensor]) -> np.ndarray:
        parts = (maps(batch).sum(0).cpu().double() for batch in images(learnt_from))
        mean = sum(parts, torch.zeros(())) / len(learnt_from)
        return points_of(lambda batch: standing_out(maps(batch), mean))

    points = points_of(encoder.attention) if encoder.is_vit else most_unusual(_map_of(stages))
    middle = np.full_like(points, side / 2)
    return Localised(
        rows,
        points,
        inside(points, things),
        inside(middle, things),
        inside(most_unusual(lambda batch: batch), things),
        np.array([share_covered(one, side) for one in things]),
        len(known) - len(things),
    )


def standing_out(maps: Tensor, usual: Tensor) -> Tensor:
    """How far the vectors of maps `(n, dim, rows, columns)` are from the mean of their own image, `(n, rows, columns)`,
    once what is `usual` at each place, `(dim, rows, columns)`, has been taken off."""
    unusual = maps.float() - usual.to(maps)
    return (unusual - unusual.mean((2, 3), keepdim=True)).norm(dim=1)


def highest(scores: Tensor, side: int) -> Tensor:
    """The middle of the place with the highest of the scores `(n, rows, columns)`, in images of `side` pixels: x, y,
    float32 `(n, 2)`. Raises `ValueError` for scores that are NaN or infinite."""
    if not torch.isfinite(scores).all():
        raise ValueError("the encoder's maps are NaN or infinite: its training has failed")
    _, rows, columns = scores.shape
    best = scores.flatten(1).argmax(1)
    x, y = (best % columns + 0.5) * side / columns, (best // columns + 0.5) * side / rows
    return torch.stack([x, y], dim=1).float()


def inside(points: np.ndarray, things: Sequence[Things]) -> np.ndarray:
    """Whether each of the points `(n, 2)`, x and y, is in the box of one of the things of its image that aren't
    ignored, bool `(n,)`; left and top edges belong to a box, right and bottom ones don't."""
    found = [
        ((boxes[:, :2] <= point) & (point < boxes[:, 2:])).all(1).any()
        for point, boxes in zip(points, map(_boxes, things), strict=True)
    ]
    return np.array(found, np.bool_)


def share_covered(things: Things, side: int) -> float:
    """Share of an image of `side` pixels whose pixels' middles are in the box of a thing that isn't ignored: how often
    a random point is."""
    middles = np.arange(side) + 0.5
    covered = np.zeros((side, side), np.bool_)
    for left, top, right, bottom in _boxes(things):
        covered |= np.outer((top <= middles) & (middles < bottom), (left <= middles) & (middles < right))
    return float(covered.mean())


def _boxes(things: Things) -> np.ndarray:
    return things.boxes[~things.ignored]


def _map_of(stages: Stages) -> Callable[[Tensor], Tensor]:
    """The last of the maps that has `COARSEST` rows or more; the finest, if none has."""
    number = max((i for i, rows in enumerate(stages.across) if rows >= COARSEST), default=0)
    return lambda images: stages(images)[number]
