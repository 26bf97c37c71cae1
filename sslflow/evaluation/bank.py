"""Features that are compared with others, held or looked at a part at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.runtime.parts import at_a_time, fits, parts


class Bank:
    """Features that others are compared with by cosine: as vectors of length 1 where the device can hold them, else as
    they are, a part at a time, so that features that are mapped from the disk may be larger than memory."""

    def __init__(self, features: Tensor, device: torch.device) -> None:
        """Features `(n, dim)`, on the device or on the CPU."""
        self._features, self._device = features, device
        self._step = at_a_time(features.shape[1])
        self._held = F.normalize(features.to(device).float(), dim=1) if fits(features, device) else None
        if self._held is None:
            self._lengths = torch.cat([part.float().norm(dim=1).clamp_min(1e-12) for part in self._parts()])

    def __len__(self) -> int:
        return len(self._features)

    def similarities(self, queries: Tensor) -> Tensor:
        """Cosines of queries `(m, dim)`, of length 1, with all of the bank, `(m, n)`."""
        if self._held is not None:
            return queries @ self._held.T
        table = queries.new_empty(len(queries), len(self))
        columns, lengths = (whole.split(self._step, dim=-1) for whole in (table, self._lengths))
        for part, own, length in zip(self._parts(), columns, lengths, strict=True):
            torch.div(queries @ part.float().T, length, out=own)
        return table

    def _parts(self) -> Iterator[Tensor]:
        return parts(self._features, self._device, self._step)
