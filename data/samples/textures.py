"""Surfaces to put things on: noise, stripes, checks, blobs, cells and slopes between two colours or three."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image


def surface(side: int, rng: np.random.Generator) -> np.ndarray:
    """A textured surface, floats `(side, side, 3)` in [0, 1]; all that is random in it comes from `rng`."""
    pattern = KINDS[rng.integers(len(KINDS))](side, rng)
    first, second = _colour(rng), _colour(rng)
    second = first + rng.uniform(0.25, 0.9) * (second - first)
    found = first + pattern[..., None] * (second - first)
    if rng.random() < 0.5:  # a second texture shimmers through
        found += rng.uniform(0.1, 0.3) * (KINDS[rng.integers(len(KINDS))](side, rng)[..., None] - 0.5) * _colour(rng)
    return np.clip(found + rng.uniform(0, 0.1) * (_cloud(side, side // 2, rng)[..., None] - 0.5), 0, 1)


def _colour(rng: np.random.Generator) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.beta(1.2, 1.5), rng.uniform(0.15, 1)))


def _turned(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places along two axes at right angles that lie anyhow, in pixels."""
    angle = rng.uniform(0, np.pi)
    down, across = np.mgrid[:side, :side]
    return across * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - across * np.sin(angle)


def _cloud(side: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of about so many spots along each side, in [0, 1]."""
    coarse = Image.fromarray(np.float32(rng.random((cells + 1, cells + 1))))
    return np.clip(np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)), 0, 1)


def _clouds(side: int, rng: np.random.Generator) -> np.ndarray:
    roughness = rng.uniform(0.3, 0.9)
    found = np.sum([roughness**i * _cloud(side, cells, rng) for i, cells in enumerate((2, 4, 8, 16, 32))], axis=0)
    return (found - found.min()) / np.ptp(found)


def _grain(side: int, rng: np.random.Generator) -> np.ndarray:
    return _cloud(side, int(rng.integers(16, side // 2 + 1)), rng)


def _blobs(side: int, rng: np.random.Generator) -> np.ndarray:
    cloud = _cloud(side, int(rng.integers(3, 13)), rng)
    return np.clip((cloud - rng.uniform(0.35, 0.65)) * rng.uniform(4, 20) + 0.5, 0, 1)


def _stripes(side: int, rng: np.random.Generator) -> np.ndarray:
    along, across = _turned(side, rng)
    bend = rng.uniform(0, 6) * np.sin(2 * np.pi * across / rng.uniform(side / 3, side))
    wave = np.sin(2 * np.pi * (along + bend) / rng.uniform(6, side / 3))
    return np.clip(0.5 + wave * rng.uniform(0.5, 4), 0, 1)


def _checks(side: int, rng: np.random.Generator) -> np.ndarray:
    along, across = _turned(side, rng)
    wide, high = rng.uniform(8, side / 3, 2)
    waves = np.sin(2 * np.pi * along / wide) * np.sin(2 * np.pi * across / high)
    return np.clip(0.5 + waves * rng.uniform(1, 8), 0, 1)


def _cells(side: int, rng: np.random.Generator) -> np.ndarray:
    """The nearest of some points decides the shade."""
    points = rng.uniform(0, side, (int(rng.integers(8, 40)), 2))
    shades = rng.random(len(points))
    down, across = np.mgrid[:side, :side]
    distances = (across[..., None] - points[:, 0]) ** 2 + (down[..., None] - points[:, 1]) ** 2
    return shades[distances.argmin(-1)]


def _slope(side: int, rng: np.random.Generator) -> np.ndarray:
    along, _ = _turned(side, rng)
    found = (along - along.min()) / np.ptp(along)
    return found if rng.random() < 0.5 else np.abs(2 * found - 1)


KINDS: tuple[Callable[[int, np.random.Generator], np.ndarray], ...] = (
    _clouds,
    _clouds,
    _grain,
    _blobs,
    _stripes,
    _checks,
    _cells,
    _slope,
)
"""Patterns `(side, side)` in [0, 1]."""
