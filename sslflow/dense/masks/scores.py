"""How well the classes of pixels are known: intersection over union, per class, on the whole and along boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.annotated import IGNORED

BOUNDARY = 0.02
"""How far from a contour a pixel is still at the boundary, as a share of the image's diagonal (arXiv:2103.16562)."""


@dataclass(frozen=True)
class Regions:
    """Of predictions for several images or volumes, over all of their pixels but the ignored ones."""

    intersection: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    """Pixels of each image and class, int64 `(n, classes)`: taken for the class rightly, taken for it, of it."""
    confusion: np.ndarray
    """Pixels of all images, int64 `(classes, classes)`: of each actual class, what they were taken for."""

    @property
    def ious(self) -> np.ndarray:
        """Of each class over all images, `(classes,)`; NaN where no pixel is of the class or taken for it."""
        hit = self.intersection.sum(axis=0)
        return _share(hit, self.predicted.sum(axis=0) + self.actual.sum(axis=0) - hit)

    @property
    def dices(self) -> np.ndarray:
        """Twice the intersection, by the sum of what was predicted and what is there, of each class as `ious`."""
        return _share(2 * self.intersection.sum(axis=0), self.predicted.sum(axis=0) + self.actual.sum(axis=0))

    @property
    def miou(self) -> float:
        """Mean over the classes that any pixel of any image is of, or was taken for; 0 where there are none."""
        return _mean(self.ious)

    @property
    def dice(self) -> float:
        """As `miou`, of `dices`."""
        return _mean(self.dices)

    @property
    def accuracy(self) -> float:
        """Share of the pixels whose class is right; 0 where there are none."""
        return float(self.intersection.sum() / max(1, self.actual.sum()))


@dataclass(frozen=True)
class Scores(Regions):
    """The same of images, and along boundaries."""

    boundary: np.ndarray
    """Pixels at the boundaries, int64 `(2, classes)`: those predicted and actual alike, and those that are either."""

    @property
    def boundary_iou(self) -> float:
        """As `miou`, of the pixels near boundaries."""
        return _mean(_share(*self.boundary))


def confusion_of(predicted: Tensor, actual: Tensor, classes: int) -> Tensor:
    """How many pixels of each actual class were taken for each, int64 `(n, classes, classes)`, of class numbers `(n,
    rows, columns)`, or of as many axes as there are; what is actually ignored is left out."""
    known = actual != IGNORED
    image = torch.arange(len(actual), device=actual.device).view(-1, *(1,) * (actual.ndim - 1)).expand_as(actual)
    pairs = (image * classes + actual.long()) * classes + predicted.long()
    return pairs[known].bincount(minlength=len(actual) * classes**2).view(-1, classes, classes)


def boundary_of(predicted: Tensor, actual: Tensor, classes: int, width: int) -> Tensor:
    """Intersection and union of the predicted and the actual pixels at each class's boundary, int64 `(2, classes)`, of
    class numbers `(n, rows, columns)` (Boundary IoU, arXiv:2103.16562).

    At the boundary of a class are its pixels with another class, an ignored pixel or the image's border within `width`
    pixels, diagonally too. What is actually ignored is so in both.
    """
    known = actual != IGNORED
    found = torch.zeros(2, classes, dtype=torch.int64)
    for number in torch.cat([actual[known].long(), predicted[known].long()]).unique().tolist():
        here, there = (_rim((mask == number) & known, width) for mask in (predicted, actual))
        found[0, number], found[1, number] = (here & there).sum(), (here | there).sum()
    return found


def boundary_width(side: int) -> int:
    """Pixels within which a pixel is at a boundary, in images of `side` x `side`."""
    return max(1, round(BOUNDARY * side * 2**0.5))


def _rim(mask: Tensor, width: int) -> Tensor:
    """The pixels of a bool mask `(n, rows, columns)` that are near its contour."""
    outside = F.pad(1 - mask.float(), (width,) * 4, value=1.0)
    near = F.max_pool2d(F.max_pool2d(outside[:, None], (2 * width + 1, 1), 1), (1, 2 * width + 1), 1)[:, 0]
    return mask & (near > 0)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0
