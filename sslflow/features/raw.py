"""Examples themselves as features, what any encoder has to beat: of each kind of data under a name of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.features.pixels import pixels
from sslflow.features.voxels import voxels
from sslflow.features.words import words

RAW: dict[str, tuple[str, Callable[[Dataset[Any], np.ndarray, torch.device], Tensor]]] = {
    "images": ("pixels", pixels),
    "text": ("words", words),
    "volumes": ("voxels", voxels),
}
"""By kinds of data: what the row is called, and rows to features `(n, dim)` on the device."""


def raw_name(dataset: Dataset[Any]) -> str:
    """What the row of a data set's examples themselves is called."""
    return RAW[dataset.format.kind][0]


def raw(dataset: Dataset[Any], rows: np.ndarray, device: torch.device) -> Tensor:
    """The rows given as features, float32 `(rows, dim)` on the device."""
    return RAW[dataset.format.kind][1](dataset, rows, device)
