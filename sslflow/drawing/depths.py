"""Depth maps in colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sslflow.drawing.overlay import factor

NEAR_TO_FAR = ((253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84))
"""Viridis backwards: the lighter, the nearer, for those who don't tell colours, too."""
ERROR = ((255, 255, 255), (253, 187, 132), (227, 74, 51), (127, 0, 0))
"""From none to the largest that is told apart."""
UNKNOWN = (150, 150, 150)


def coloured(
    values: np.ndarray, known: np.ndarray, ends: tuple[float, float], scale: tuple[tuple[int, ...], ...], side: int
) -> Image.Image:
    """Values `(height, width)` in colours, from those of the first of the `ends` to those of the second, a whole number
    of times as large, about `side` wide; grey where they aren't `known`, bool `(height, width)`."""
    low, high = ends
    share = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(scale) - 1)
    anchors = np.arange(len(scale))
    pixels = np.stack([np.interp(share, anchors, [ink[band] for ink in scale]) for band in range(3)], axis=-1)
    pixels[~known] = UNKNOWN
    image = Image.fromarray(pixels.round().astype(np.uint8))
    times = factor(image.width, side)
    return image.resize((image.width * times, image.height * times), 0)
