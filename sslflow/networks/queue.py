"""Outputs of earlier steps that stay at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMPTY = -1


class Queue(nn.Module):
    """The last `size` vectors that were put in, and which of the run's images they are of; to be kept the same in all
    processes by putting in what was gathered."""

    vectors: Tensor
    """`(size, dim)`."""
    rows: Tensor
    """Of the images, int64 `(size,)`."""
    oldest: Tensor
    """The place that is filled next, int64 scalar."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("rows", torch.full((size,), EMPTY))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def fill(self, vectors: Tensor, rows: Tensor) -> None:
        """Repeat the first step's vectors until no place is empty: so a loss means the same from the first step on."""
        empty = self.rows == EMPTY
        repeated = torch.arange(len(self), device=vectors.device) % len(vectors)
        self.vectors = torch.where(empty[:, None], vectors[repeated], self.vectors)
        self.rows = torch.where(empty, rows[repeated], self.rows)

    def put(self, vectors: Tensor, rows: Tensor) -> None:
        """Put them in place of the oldest, from the start again where the end is reached."""
        vectors, rows = vectors[-len(self) :], rows[-len(self) :]
        places = (self.oldest + torch.arange(len(vectors), device=vectors.device)) % len(self)
        # Copies: the backward pass still needs the queue as the loss saw it.
        self.vectors = self.vectors.index_copy(0, places, vectors)
        self.rows = self.rows.index_copy(0, places, rows)
        self.oldest = (self.oldest + len(vectors)) % len(self)
