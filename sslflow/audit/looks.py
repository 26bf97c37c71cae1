"""What pictures look like, each for itself: blank, blurred, dark, bright, garish, of an odd shape, small, grey."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.drawing.stills import stills

BLOCK = 512
"""Images that are read at a time."""
SMALL = 32
"""Side to which larger images are averaged where they are compared with each other."""
BLANK = 3.0
"""Standard deviation of an image's pixels, of 255 levels, below which it is blank."""
ODD = 3.5
"""Robust deviations from the median from which on a value is extreme (Iglewicz and Hoaglin)."""
NORMAL = 1.4826
"""Of a normal distribution, standard deviation over median absolute deviation."""
DARK, BRIGHT, GARISH = 0.1, 0.9, 0.9
"""Shares of white, and of full saturation, beyond which images may be called so."""
SHAPE = 2.0
"""So many times as wide or high as most images, a shape is odd."""


@dataclass(frozen=True)
class Looks:
    """Measures of images, float `(n,)` each."""

    contrast: np.ndarray
    """Standard deviation of the pixels of the channel that varies most, of 255 levels."""
    sharpness: np.ndarray
    """Logarithm of the variance of the Laplacian over that of the pixels."""
    brightness: np.ndarray
    """Mean, as a share of white."""
    saturation: np.ndarray
    """Mean over the pixels of (largest − smallest) / largest channel."""

    @property
    def blank(self) -> np.ndarray:
        """Bool `(n,)`: nothing is in the picture."""
        return self.contrast < BLANK


@dataclass(frozen=True)
class Look:
    """A picture that stands out: its place among the rows, in what, its value and the usual one."""

    place: int
    kind: str
    value: float
    usual: float


@torch.no_grad()
def survey(dataset: Dataset, rows: np.ndarray) -> tuple[Looks, Tensor]:
    """Measures of the rows given, and the images themselves, small: uint8 `(n, channels, side, side)`, `SMALL` pixels
    at most."""
    parts, small = [], []
    for start in range(0, len(rows), BLOCK):
        images = torch.from_numpy(stills(dataset, rows[start : start + BLOCK])).float()
        parts.append(_measured(images))
        images = F.adaptive_avg_pool2d(images, SMALL) if images.shape[-1] > SMALL else images
        small.append(images.round().to(torch.uint8))
    columns = torch.cat(parts, dim=1).numpy()
    return Looks(*columns), torch.cat(small)


def _measured(images: Tensor) -> Tensor:
    """Contrast, sharpness, brightness and saturation of float `(n, channels, side, side)`: `(4, n)`."""
    contrast = images.flatten(2).std(dim=2, correction=0).amax(dim=1)
    grey = images.mean(dim=1, keepdim=True)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    edges = F.conv2d(grey, kernel).flatten(1).var(dim=1, correction=0)
    sharpness = ((edges + 1e-3) / (grey.flatten(1).var(dim=1, correction=0) + 1e-3)).log()
    most = images.amax(dim=1)
    saturation = ((most - images.amin(dim=1)) / most.clamp_min(1.0)).flatten(1).mean(dim=1)
    return torch.stack([contrast, sharpness, images.flatten(1).mean(dim=1) / 255, saturation])


def odd(looks: Looks, widths: np.ndarray, heights: np.ndarray, size: int, channels: int) -> list[Look]:
    """The pictures that stand out, of each kind the worst first. `widths` and `heights` are the files' pixels, `size`
    and `channels` those of prepared images.

    Blurred, dark, bright and garish are relative to the set: where all images are dark none is. Small are those that
    were enlarged, grey those without colour; where these are the most, the others are named.
    """
    found: list[Look] = []

    def add(kind: str, values: np.ndarray, which: np.ndarray, usual: float, worst: Callable[[np.ndarray], np.ndarray]):
        places = np.flatnonzero(which)
        order = places[np.argsort(worst(values[places]), kind="stable")]
        found.extend(Look(place, kind, float(values[place]), usual) for place in order.tolist())

    blank = looks.blank
    usual = float(np.median(looks.contrast)) if len(blank) else 0.0
    add("blank", looks.contrast, blank, usual, lambda values: values)
    shown = ~blank
    if not shown.any():
        return found
    low, middle = extremes(looks.sharpness, shown)
    add("blurred", looks.sharpness, low < -ODD, middle, lambda values: values)
    deviation, middle = extremes(looks.brightness, shown)
    dark, bright = looks.brightness < DARK, looks.brightness > BRIGHT
    add("dark", looks.brightness, dark & (deviation < -ODD), middle, lambda values: values)
    add("bright", looks.brightness, bright & (deviation > ODD), middle, lambda values: -values)
    if channels > 1:
        deviation, middle = extremes(looks.saturation, shown)
        garish = (looks.saturation > GARISH) & (deviation > ODD)
        add("garish", looks.saturation, garish, middle, lambda values: -values)
        grey = looks.saturation == 0
        few, kind = (grey, "grey") if grey.sum() <= len(grey) / 2 else (~grey, "coloured")
        add(kind, looks.saturation, few & shown, middle, lambda values: values)
    shape = np.log(widths / heights)
    middle = float(np.median(shape))
    strange = np.abs(shape - middle) > np.log(SHAPE)
    add("odd shape", widths / heights, strange, float(np.exp(middle)), lambda values: -np.abs(np.log(values) - middle))
    side = np.minimum(widths, heights)
    if (side < size).mean() <= 0.5:
        add("enlarged", side.astype(float), side < size, float(np.median(side)), lambda values: values)
    return found


def extremes(values: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, float]:
    """How many robust deviations each value is from the median of those `among` (0 for others), and the median. Where
    more than half of them are equal, nothing deviates."""
    middle = float(np.median(values[among]))
    spread = NORMAL * float(np.median(np.abs(values[among] - middle)))
    deviation = (values - middle) / spread if spread > 0 else np.zeros(len(values))
    return np.where(among, deviation, 0.0), middle
