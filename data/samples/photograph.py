"""A handwritten digit as a poor camera would see it: tilted, badly lit, on some dark surface, out of focus, noisy."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

PIXELS = 28
FINE = 2 * PIXELS
"""Pixels of the sheet on which a photo is drawn; reduced at the end, so that edges are smooth."""


def photograph(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A photo of `ink`, floats `(h, w)` in [0, 1], as uint8 `(28, 28)`; all that is random in it comes from `rng`."""
    contrast = rng.uniform(0.55, 0.85)
    dark = rng.uniform(0.05, 0.95 - contrast)
    surface = dark + rng.uniform(0.05, 0.15) * contrast * _texture(rng) + rng.uniform(0.05, 0.15) * _slope(rng)
    cover = _tilted(ink, rng)
    scene = surface + cover * contrast
    image = Image.fromarray(np.uint8(np.clip(255 * scene, 0, 255)))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 2.0))).resize((PIXELS, PIXELS), Image.Resampling.BOX)
    noise = rng.normal(0, rng.uniform(2, 8), (PIXELS, PIXELS))
    return np.uint8(np.clip(np.asarray(image) + noise, 0, 255).round())


def _tilted(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much of the sheet ink covers: the digit turned by up to 20 degrees, moved, and seen at a slight angle."""
    angle = np.deg2rad(rng.uniform(-20, 20))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ turn.T * rng.uniform(0.75, 0.95)
    corners = (corners + rng.uniform(-0.05, 0.05, 2) + rng.uniform(-0.06, 0.06, (4, 2)) + 1) * FINE / 2
    square = np.array([[0, 0], [FINE, 0], [FINE, FINE], [0, FINE]])
    sheet = Image.fromarray(np.uint8(255 * ink)).resize((FINE, FINE), Image.Resampling.BICUBIC)
    seen = sheet.transform(
        (FINE, FINE), Image.Transform.PERSPECTIVE, _perspective(corners, square), Image.Resampling.BICUBIC
    )
    return np.asarray(seen) / 255


def _perspective(seen: np.ndarray, flat: np.ndarray) -> list[float]:
    """The eight numbers with which Pillow finds the point of `flat` that is seen at a point; both `(4, 2)` corners."""
    rows, wanted = [], []
    for (x, y), (u, v) in zip(seen, flat, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        wanted += [u, v]
    return np.linalg.solve(np.array(rows), np.array(wanted)).tolist()


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Spots of two sizes, `(FINE, FINE)`, about within ±1."""
    spots = [
        np.asarray(
            Image.fromarray(np.float32(rng.normal(size=(cells, cells)))).resize((FINE, FINE), Image.Resampling.BICUBIC)
        )
        for cells in (5, 14)
    ]
    return sum(spots) / 2


def _slope(rng: np.random.Generator) -> np.ndarray:
    """Light that falls from one side, `(FINE, FINE)`, within ±0.7."""
    angle = rng.uniform(0, 2 * np.pi)
    across, down = np.meshgrid(np.linspace(-0.5, 0.5, FINE), np.linspace(-0.5, 0.5, FINE))
    return across * np.cos(angle) + down * np.sin(angle)
