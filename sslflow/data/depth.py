"""Depth maps beside prepared images: what is known of all of them, and which images have one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.data.dataset import Dataset

FIELD = "depth"
"""float32 `(n, 1, size, size)`, 0 where it isn't known."""
MISSING = "there are no depth maps beside these images: name them in data.depth (docs/depth.md)"


@dataclass(frozen=True)
class DepthFacts:
    """Of the depth maps of a data set."""

    mean_log: float
    std_log: float
    """Of the logarithm of depth, over the known pixels of the images to pretrain on."""

    def standardised(self, depth: Tensor) -> Tensor:
        """Log depth with mean 0 and deviation 1, 0 too where it isn't known, of maps of any shape."""
        return torch.where(depth > 0, (self.logs(depth) - self.mean_log) / self.std_log, 0.0)

    @staticmethod
    def logs(depth: Tensor) -> Tensor:
        """Log depth, 0 where it isn't known."""
        return torch.where(depth > 0, depth, 1.0).log()


def depth_facts(dataset: Dataset) -> DepthFacts:
    """Raises `ValueError` where there are no depth maps."""
    if FIELD not in dataset.beside:
        raise ValueError(MISSING)
    facts = dataset.beside[FIELD]
    return DepthFacts(facts["mean_log"], facts["std_log"])


def with_depth(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Those of the rows of whose images some pixel's depth is known; none where there are no depth maps."""
    if FIELD not in dataset.beside:
        return rows[:0]
    return rows[dataset.column("depth", rows) > 0]
