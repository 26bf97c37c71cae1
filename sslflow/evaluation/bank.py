"""Features that are compared with others, held or looked at a part at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HELD = 2**26
"""Numbers up to which what is made of features is held, 256 MiB."""
PART = 2**22
"""Numbers at a time, above that."""


class Bank:
    """Features that others are compared with by cosine: as vectors of length 1, or, above `HELD` numbers, as they are,
    a part at a time, so that features that are mapped from the disk may be larger than memory."""

    def __init__(self, features: Tensor) -> None:
        """Features `(n, dim)`."""
        self._features = features
        self._step = max(1, PART // features.shape[1])
        self._held = F.normalize(features.float(), dim=1) if features.numel() <= HELD else None
        if self._held is None:
            lengths = [part.float().norm(dim=1).clamp_min(1e-12) for part in features.split(self._step)]
            self._lengths = torch.cat(lengths)

    def __len__(self) -> int:
        return len(self._features)

    def similarities(self, queries: Tensor) -> Tensor:
        """Cosines of queries `(m, dim)`, of length 1, with all of the bank, `(m, n)`."""
        if self._held is not None:
            return queries @ self._held.T
        table = queries.new_empty(len(queries), len(self))
        for start in range(0, len(self), self._step):
            here = slice(start, start + self._step)
            torch.div(queries @ self._features[here].float().T, self._lengths[here], out=table[:, here])
        return table
