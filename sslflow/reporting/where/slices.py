"""Volumes to look at: three slices through the middle, one above the other."""

from __future__ import annotations

import numpy as np

NAMES = ("axial", "coronal", "sagittal")


def three(volume: np.ndarray) -> np.ndarray:
    """The middle slices across the last, the second and the first axis of a cube `(…, s, s, s)`, whose axes run from
    left to right, from back to front and from below to above: `(…, 3 s, s)`, the third axis, or in the first slice the
    second one, upwards."""
    middle = volume.shape[-1] // 2
    slices = (volume[..., middle], volume[..., middle, :], volume[..., middle, :, :])
    return np.concatenate([one.swapaxes(-1, -2)[..., ::-1, :] for one in slices], axis=-2)
