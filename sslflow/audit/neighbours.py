"""Nearest neighbours within a set, a block of rows at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 512
"""Rows of the table of similarities that is in memory at a time."""


@torch.no_grad()
def nearest(features: Tensor, groups: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and places, each `(n, min(k, n − 1))`, of the nearest rows of `features` `(n, dim)`, closest first, none
    of the row's own group, int64 `(n,)`. Where there are not so many, the cosine is −2."""
    directions = F.normalize(features.float(), dim=1)
    near, places = [], []
    for start in range(0, len(directions), BLOCK):
        here = slice(start, start + BLOCK)
        cosines = directions[here] @ directions.T
        cosines.masked_fill_(groups[here, None] == groups[None, :], -2.0)
        closest = cosines.topk(min(k, len(directions) - 1), dim=1)
        near.append(closest.values)
        places.append(closest.indices)
    return torch.cat(near), torch.cat(places)
