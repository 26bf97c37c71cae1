"""Volumes as pictures: slices through the middle, as people are used to see them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

Volume = TypeVar("Volume", np.ndarray, Tensor)
"""Cubes `(…, s, s, s)`, whose axes run from left to right, from back to front and from below to above."""


def axial(volume: Volume) -> Volume:
    """The middle slice across the last axis, `(…, s, s)`: the front above, the right on the right."""
    return upright(volume[..., volume.shape[-1] // 2])


def three(volume: Volume) -> list[Volume]:
    """The middle slices across the last, the second and the first axis: axial; coronal, from behind; sagittal, the
    front on the right."""
    middle = volume.shape[-1] // 2
    return [axial(volume), upright(volume[..., middle, :]), upright(volume[..., middle, :, :])]


def upright(plane: Volume) -> Volume:
    """A plane `(…, s, s)` with its last axis upwards."""
    turned = plane.swapaxes(-1, -2)
    return turned[..., ::-1, :] if isinstance(turned, np.ndarray) else turned.flip(-2)
