"""Whether a map's maximum lies on the thing that sounds (the pointing game, arXiv:1608.00507), beside what knows
nothing of the sound."""

from __future__ import annotations

import numpy as np

from sslflow.data.dataset import Dataset


def known_boxes(clips: Dataset, rows: np.ndarray) -> np.ndarray:
    """The box x0, y0, x1, y1 in [0, 1] of the thing that sounds, of each clip of the rows, float32 `(n, 4)`; NaN where
    unknown."""
    return np.stack([clips.column(edge, rows) for edge in ("x0", "y0", "x1", "y1")], axis=1)


def pointing(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """For each of `maps`, float `(n, side, side)`, the share of its maxima that lies within the box, `(n,)`: 0 or 1
    unless several places are equally high. `boxes` are x0, y0, x1, y1 as shares of the side, `(n, 4)`."""
    inside = within(boxes, maps.shape[1])
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    return (highest & inside).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))


def centre(boxes: np.ndarray) -> np.ndarray:
    """Whether the middle of the frame lies within each box, as shares `(n,)`: what a photographer's habit gives."""
    x0, y0, x1, y1 = boxes.T
    return ((x0 <= 0.5) & (x1 >= 0.5) & (y0 <= 0.5) & (y1 >= 0.5)).astype(np.float64)


def anywhere(boxes: np.ndarray, side: int) -> np.ndarray:
    """The share of the frame that each box covers, `(n,)`: what pointing by chance gives."""
    return within(boxes, side).mean(axis=(1, 2))


def within(boxes: np.ndarray, side: int) -> np.ndarray:
    """Which pixels have their middle within each box, bool `(n, side, side)`."""
    middles = (np.arange(side) + 0.5) / side
    x0, y0, x1, y1 = (edge[:, None] for edge in boxes.T)
    across, down = (middles >= x0) & (middles <= x1), (middles >= y0) & (middles <= y1)
    return down[:, :, None] & across[:, None, :]
