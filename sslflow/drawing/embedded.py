"""Pictures inside a page: arrays and files to data: URLs, small enough to send by mail."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sslflow.runtime.files import reading

WIDEST = 1600
"""Pixels: a wider or higher sheet is made smaller before it goes into the page."""


@dataclass(frozen=True)
class Picture:
    """An image as a data: URL, with the size in pixels that lets a browser lay out the page before it is decoded."""

    url: str
    width: int
    height: int


def picture(image: Image.Image, quality: int = 82) -> Picture:
    """A WebP of the image; `quality` from 1 to 100."""
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    url = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(url, image.width, image.height)


def sheet(file: Path) -> Picture | None:
    """A contact sheet made by another stage, or None where there is none."""
    if not file.exists():
        return None
    with reading(file), Image.open(file) as image:
        image = image.convert("RGB")
    image.thumbnail((WIDEST, 2 * WIDEST), Image.Resampling.LANCZOS)
    return picture(image)


def image(pixels: np.ndarray) -> Image.Image:
    """A picture of uint8 `(channels, height, width)`; one channel is grey, more than three are cut to three."""
    if len(pixels) < 3:
        return Image.fromarray(np.ascontiguousarray(pixels[0]))
    return Image.fromarray(np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))


def sprite(pixels: np.ndarray, cell: int) -> tuple[Picture, int]:
    """All images `(n, channels, size, size)` on one picture, `cell` pixels wide each, in reading order; its columns."""
    columns = max(1, int(np.ceil(np.sqrt(len(pixels)))))
    rows = -(-len(pixels) // columns)
    canvas = Image.new("L" if pixels.shape[1] < 3 else "RGB", (columns * cell, rows * cell))
    for number, one in enumerate(pixels):
        thumbnail = image(one)
        if thumbnail.size != (cell, cell):
            thumbnail = thumbnail.resize((cell, cell), Image.Resampling.LANCZOS)
        canvas.paste(thumbnail, (number % columns * cell, number // columns * cell))
    return picture(canvas), columns
