"""Features that are compared with others, held or looked at a part at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HELD = 2**26
"""Numbers up to which what is made of features is held, 256 MiB."""
PART = 2**24
"""Numbers at a time, above that."""


class Bank:
    """Features as vectors of length 1: held, or above `HELD` numbers made again for each table of similarities, so that
    features that are mapped from the disk may be larger than memory."""

    def __init__(self, features: Tensor) -> None:
        """Features `(n, dim)`."""
        self._features = features
        self._held = F.normalize(features.float(), dim=1) if features.numel() <= HELD else None

    def __len__(self) -> int:
        return len(self._features)

    def similarities(self, queries: Tensor) -> Tensor:
        """Cosines of queries `(m, dim)`, of length 1, with all of the bank, `(m, n)`."""
        if self._held is not None:
            return queries @ self._held.T
        table = queries.new_empty(len(queries), len(self))
        step = max(1, PART // self._features.shape[1])
        for start in range(0, len(self), step):
            part = F.normalize(self._features[start : start + step].float(), dim=1)
            torch.mm(queries, part.T, out=table[:, start : start + step])
        return table
