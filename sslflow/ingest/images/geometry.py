"""Where the pixels of a picture come to lie when it is prepared: the same for its image, mask and boxes. Imports no
torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Fit = Literal["crop", "pad", "stretch"]

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientations, and what makes such a picture upright."""
SWAPPING = (5, 6, 7, 8)
"""Those that make height of width."""


@dataclass(frozen=True)
class Placement:
    """How a picture comes into a square: a part of it is resized and laid there."""

    part: tuple[float, float, float, float]
    """Left, top, right, bottom, in pixels of the picture, whose first is from 0 to 1."""
    size: tuple[int, int]
    """Width and height to which that is resized."""
    at: tuple[int, int]
    """Left and top of it in the square; what is beside it is no part of the picture."""

    def resized(self, image: Image.Image, how: Image.Resampling) -> Image.Image:
        """The part of the picture, resized; at its own size not touched."""
        if image.size == self.size and self.part == (0, 0, *image.size):
            return image
        return image.resize(self.size, how, box=self.part, reducing_gap=None if how == NEAREST else 3.0)

    def moved(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes `(k, 4)`, left, top, right, bottom, from the picture into the square; they may reach out of it."""
        left, top, right, bottom = self.part
        scale = np.asarray([self.size[0] / (right - left), self.size[1] / (bottom - top)] * 2)
        return (boxes - np.asarray([left, top] * 2)) * scale + np.asarray(self.at * 2)


NEAREST = Image.Resampling.NEAREST


def placement(width: int, height: int, size: int, fit: Fit) -> Placement:
    """Of a picture in a square of `size` pixels: `crop`, its middle square; `pad`, all of it, with a border; `stretch`,
    all of it. A picture that lies on its side, placed and then turned, comes to lie where the upright one would."""
    whole = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return Placement((left, top, left + side, top + side), (size, size), (0, 0))
    if fit == "stretch":
        return Placement(whole, (size, size), (0, 0))
    longer = max(width, height)
    across, down = max(1, round(size * width / longer)), max(1, round(size * height / longer))
    return Placement(whole, (across, down), ((size - across) // 2, (size - down) // 2))


def turned(boxes: np.ndarray, orientation: int, width: int, height: int) -> np.ndarray:
    """Boxes `(k, 4)` of a picture of that size as stored, upright: of the orientations that make height of width."""
    left, top, right, bottom = boxes.T
    across, down = {
        5: ((top, bottom), (left, right)),
        6: ((height - bottom, height - top), (left, right)),
        7: ((height - bottom, height - top), (width - right, width - left)),
        8: ((top, bottom), (width - right, width - left)),
    }[orientation]
    return np.stack([across[0], down[0], across[1], down[1]], axis=1)
