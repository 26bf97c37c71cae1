"""Pixels as features: what any encoder has to beat."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.dataset import Dataset

PIXELS = 32
"""Side to which larger images are averaged: a classifier on all pixels of photographs takes gigabytes, and longer than
pretraining."""
_BATCH = 1024


def pixels(dataset: Dataset, rows: np.ndarray, device: torch.device) -> Tensor:
    """Pixels of the rows given, from 0 to 255, float32 `(rows, dim)` on the device; of images larger than `PIXELS`, the
    means of `PIXELS` × `PIXELS` areas. Whole images are read a few at a time."""
    parts = []
    for start in range(0, len(rows), _BATCH):
        images = dataset.read(rows[start : start + _BATCH])["images"].to(device).float()
        small = F.adaptive_avg_pool2d(images, PIXELS) if dataset.format.size > PIXELS else images
        parts.append(small.flatten(1))
    return torch.cat(parts)
