"""Passages of text as small pictures, as a browser of files shows pages."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, PAPER = 40, 255
SIZE = 10
"""Pixels: the height of a letter, about."""


def passages(texts: Sequence[str], side: int) -> np.ndarray:
    """As much of each text as has room, dark on white, uint8 `(len(texts), 1, side, side)`."""
    font: Any = ImageFont.load_default(size=SIZE)
    across = max(1, int((side - 4) / font.getlength("n")))
    down = max(1, (side - 4) // (SIZE + 2))
    pages = np.full((len(texts), 1, side, side), PAPER, np.uint8)
    for page, text in zip(pages, texts, strict=True):
        image = Image.new("L", (side, side), PAPER)
        lines = textwrap.wrap(text, across, max_lines=down, placeholder=" …")
        ImageDraw.Draw(image).multiline_text((2, 1), "\n".join(lines), INK, font, spacing=2)
        page[0] = np.asarray(image)
    return pages
