"""Outputs of earlier steps that stay at hand, and what is told from them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.runtime.device import full_precision

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


@full_precision
def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, ignored: Tensor, temperature: float) -> Tensor:
    """Cross entropy of picking `keys[i]` for `queries[i]`, both `(n, dim)`, from it and `negatives` `(k, dim)`, by
    cosine similarity over the temperature: scalar, a mean over the queries; at random it is about ln(k + 1).

    Keys and negatives have length 1. Where `ignored` `(n, k)` is true, a negative does not stand against a query.
    """
    queries = F.normalize(queries, dim=1)
    right = (queries * keys).sum(dim=1, keepdim=True)
    wrong = (queries @ negatives.T).masked_fill(ignored, -torch.inf)
    logits = torch.cat([right, wrong], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
