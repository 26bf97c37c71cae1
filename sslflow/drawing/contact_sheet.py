"""Contact sheets: many small images on one picture, with words beside the rows and above the columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

GAP = 2
MARGIN = 6
LETTERS = 12
"""Height of the words, in pixels, at the least."""
SHRUNK = 80
"""The words' height is at the least such a part of the images' width: a wide sheet is shown smaller than it is."""
INK, PAPER = (40, 40, 40), (255, 255, 255)


def contact_sheet(
    images: ArrayLike,
    *,
    columns: int,
    scale: int = 1,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
) -> Image.Image:
    """Images in reading order on white, `columns` to a row, each pixel drawn `scale` times as wide and as high.

    `images` is uint8 `(n, channels, height, width)`, an array or a CPU tensor, of 1 (grey) or 3 (colour) channels;
    the last row may be short. `row_labels` stand left of the rows and `column_labels` above the columns (cut where
    the next one begins), from the first on. Returns an RGB picture. Raises `ValueError` for other shapes and types.
    """
    pixels = np.asarray(images)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or pixels.dtype != np.uint8:
        raise ValueError(f"expected uint8 images (n, 1 or 3, height, width), found {pixels.dtype} {pixels.shape}")
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale are at least 1, found {columns} and {scale}")
    pixels = np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])).transpose(0, 2, 3, 1)
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)

    height, width = pixels.shape[1:3]
    rows = max(-(-len(pixels) // columns), len(row_labels))
    font: Any = ImageFont.load_default(size=max(LETTERS, columns * (width + GAP) // SHRUNK))
    line = sum(font.getmetrics()) + 4
    left = MARGIN + max((int(font.getlength(label)) + MARGIN for label in row_labels), default=0)
    title_height = line if title else 0
    top = MARGIN + title_height + (line if column_labels else 0)
    pitch = max(height, line if row_labels else 0) + GAP
    across = left + columns * (width + GAP) - GAP + MARGIN
    sheet = Image.new(
        "RGB", (max(across, int(font.getlength(title)) + 2 * MARGIN), top + rows * pitch - GAP + MARGIN), PAPER
    )
    draw = ImageDraw.Draw(sheet)

    draw.text((MARGIN, MARGIN), title, INK, font)
    for number, label in enumerate(row_labels):
        draw.text((MARGIN, top + number * pitch + (height - line) // 2 + 2), label, INK, font)
    for number, label in enumerate(column_labels):
        draw.text((left + number * (width + GAP), MARGIN + title_height), _fit(label, width, font), INK, font)
    for number, picture in enumerate(pixels):
        place = left + number % columns * (width + GAP), top + number // columns * pitch
        sheet.paste(Image.fromarray(picture), place)
    return sheet


def _fit(text: str, width: int, font: Any) -> str:
    """The longest beginning of `text` that is no wider than `width` pixels."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
