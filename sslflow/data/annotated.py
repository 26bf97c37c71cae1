"""What is agreed on masks and boxes of prepared images. Imports no torch."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

IGNORED = 255
"""In a mask: a pixel of which nothing is known, or wanted."""
LEAST_LEFT = 0.25
"""Share of a box's area: a thing of which less is left in an image is ignored."""


def as_png(mask: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """A PNG file whose values are those of the mask, uint8 `(height, width)`; with `colours`, uint8 `(256, 3)`, it is
    looked at in these."""
    image = Image.fromarray(mask)
    if colours is not None:
        image.putpalette(colours.tobytes())
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
