"""Voxels as features: what any encoder of volumes has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.dataset import Dataset

VOXELS = 8
"""Voxels along each axis to which larger blocks are averaged."""
_BATCH = 256


def voxels(dataset: Dataset[Any], rows: np.ndarray, device: torch.device) -> Tensor:
    """Voxels of the rows given, from 0 to 255, float32 `(rows, dim)` on the device; of blocks larger than `VOXELS`, the
    means of `VOXELS` × `VOXELS` × `VOXELS` parts. Blocks are read a few at a time."""
    parts = []
    for start in range(0, len(rows), _BATCH):
        blocks = dataset.read(rows[start : start + _BATCH])["volumes"].to(device).float()
        small = F.adaptive_avg_pool3d(blocks, VOXELS) if dataset.format.side > VOXELS else blocks
        parts.append(small.flatten(1))
    return torch.cat(parts)
