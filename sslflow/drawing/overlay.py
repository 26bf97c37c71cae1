"""Masks and boxes drawn on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from sslflow.drawing.embedded import image
from sslflow.drawing.svg import colour

TINT = 0.65
"""How much of a pixel is its class's colour."""
WRONG = (224, 36, 46)
BACKGROUND = "background"
"""The class that is not drawn."""


@dataclass(frozen=True)
class Frame:
    """A box with words on it: left, top, right, bottom, in pixels of the image before it is enlarged."""

    box: Sequence[float]
    words: str
    ink: str
    dashed: bool = False


def inks(names: Sequence[str]) -> dict[int, str]:
    """The colour of each class, `#4e79a7`; none of a background, which is left as it is."""
    shown = [label for label, name in enumerate(names) if name.lower() != BACKGROUND]
    return {label: _hex(colour(number, len(shown))) for number, label in enumerate(shown)}


def _hex(ink: str) -> str:
    red, green, blue = ImageColor.getrgb(ink.replace(" ", ", ") if ink.startswith("hsl") else ink)[:3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """An RGB picture of uint8 `(channels, height, width)`, a whole number of times as large, about `side` wide."""
    small = image(pixels).convert("RGB")
    return small.resize((small.width * factor(small.width, side), small.height * factor(small.width, side)), 0)


def stacked(tiles: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures of one width, one above the other, with white between them."""
    page = Image.new("RGB", (tiles[0].width, sum(one.height for one in tiles) + gap * (len(tiles) - 1)), "white")
    for number, one in enumerate(tiles):
        page.paste(one, (0, sum(each.height + gap for each in tiles[:number])))
    return page


def factor(width: int, side: int) -> int:
    """How many times as large an image is drawn."""
    return max(1, round(side / width))


def tinted(pixels: np.ndarray, mask: np.ndarray, inks: Mapping[int, str], side: int) -> Image.Image:
    """An image in grey under its mask, uint8 `(height, width)`, in the `inks` of its classes; what has none is left."""
    grey = _grey(pixels)
    shown = grey.copy()
    for label in np.unique(mask).tolist():
        if label in inks:
            here = mask == label
            shown[here] = TINT * np.array(ImageColor.getrgb(inks[label])) + (1 - TINT) * grey[here]
    return enlarged(shown.round().astype(np.uint8).transpose(2, 0, 1), side)


def marked(pixels: np.ndarray, wrong: np.ndarray, side: int) -> Image.Image:
    """An image in grey, in red where it is `wrong`, bool `(height, width)`."""
    grey = _grey(pixels)
    grey[wrong] = 0.8 * np.array(WRONG) + 0.2 * grey[wrong]
    return enlarged(grey.round().astype(np.uint8).transpose(2, 0, 1), side)


def framed(pixels: np.ndarray, frames: Sequence[Frame], side: int) -> Image.Image:
    """An image with boxes, their words above each, or inside where there is no room."""
    shown = enlarged(pixels, side)
    times, pen = factor(pixels.shape[-1], side), ImageDraw.Draw(shown)
    font: Any = ImageFont.load_default(size=11)
    for frame in frames:
        left, top, right, bottom = (times * edge for edge in frame.box)
        right, bottom = max(left + 2, min(right, shown.width) - 1), max(top + 2, min(bottom, shown.height) - 1)
        _outline(pen, (left, top, right, bottom), frame)
    for frame in frames:
        if frame.words:
            left, top = times * frame.box[0], times * frame.box[1]
            wide, high = font.getlength(frame.words) + 4, sum(font.getmetrics())
            x = min(max(0.0, left), max(0.0, shown.width - wide))
            y = top - high if top >= high else min(top, shown.height - high)
            pen.rectangle((x, y, x + wide, y + high), fill=frame.ink)
            pen.text((x + 2, y), frame.words, "white", font)
    return shown


def pointed(pixels: np.ndarray, places: Sequence[tuple[float, float, str]], side: int) -> Image.Image:
    """An image with a ring at each place: column and row in its pixels, and a colour."""
    shown = enlarged(pixels, side)
    times, pen = factor(pixels.shape[-1], side), ImageDraw.Draw(shown)
    for x, y, ink in places:
        for radius, line, width in ((7, "black", 4), (6, ink, 2)):
            box = (times * x - radius, times * y - radius, times * x + radius, times * y + radius)
            pen.ellipse(box, outline=line, width=width)
    return shown


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The image in grey, float64 `(height, width, 3)`."""
    grey = image(pixels).convert("L")
    return np.asarray(grey, dtype=np.float64)[..., None].repeat(3, axis=2)


def _outline(pen: ImageDraw.ImageDraw, edges: tuple[float, float, float, float], frame: Frame) -> None:
    left, top, right, bottom = edges
    if not frame.dashed:
        pen.rectangle(edges, outline=frame.ink, width=2)
        return
    for start in np.arange(left, right, 8.0):
        for y in (top, bottom):
            pen.line((start, y, min(start + 4, right), y), fill=frame.ink, width=2)
    for start in np.arange(top, bottom, 8.0):
        for x in (left, right):
            pen.line((x, start, x, min(start + 4, bottom)), fill=frame.ink, width=2)
