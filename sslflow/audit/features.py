"""Features that need no training: of weights that exist, or else pixels; few numbers an image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sslflow.runtime.rng import derive, permutation

BLOCK = 4096
"""Rows whose features are in memory at a time; of the first block the directions are taken."""
DIRECTIONS = 256
"""Of largest variance, that are kept."""


@torch.no_grad()
def reduced(features: Callable[[np.ndarray], Tensor], rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """The `features` `(m, dim)` of the rows given, centred, along `DIRECTIONS` at most, float32 `(n, directions)` on
    the CPU; and which rows have finite ones, bool `(n,)`: those of the others are 0."""
    order = permutation(len(rows), 0, "audit", "directions").numpy()
    finite = np.zeros(len(rows), dtype=bool)
    found, mean, basis = torch.zeros(0, 0), torch.zeros(0), torch.zeros(0, 0)
    for start in range(0, len(rows), BLOCK):
        places = order[start : start + BLOCK]
        block = features(rows[places]).float()
        good = block.isfinite().all(dim=1)
        finite[places] = good.cpu().numpy()
        if not len(basis) and good.any():
            mean = block[good].mean(dim=0)
            basis = _directions(block[good] - mean)
            found = torch.zeros(len(rows), basis.shape[1])
        if good.any():
            found[torch.from_numpy(places)[good.cpu()]] = ((block[good] - mean) @ basis).cpu()
    return found if len(basis) else torch.zeros(len(rows), 1), finite


def _directions(centred: Tensor) -> Tensor:
    """`(dim, directions)`, orthonormal, of largest variance."""
    count = min(DIRECTIONS, *centred.shape)
    torch.manual_seed(derive(0, "audit", "directions"))
    return torch.svd_lowrank(centred, q=count, niter=4)[2]
