"""Weighted k-nearest-neighbours on frozen features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.evaluation.bank import Bank
from sslflow.runtime.parts import parts
from sslflow.settings.params import Count, Positive

CHUNK = 1024
"""Queries at a time: the table of similarities is this many rows high, at most."""
CELLS = 2**26
"""Similarities at a time: of a bank above 65,536 rows, fewer queries."""


@torch.no_grad()
def knn_predict(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, classes: int, *, k: Count = 20, temperature: Positive = 0.1
) -> Tensor:
    """Class of each query, int64 `(queries,)`, by its `k` neighbours in the bank, voting with weight exp(cosine /
    temperature).

    As in Wu et al. (arXiv:1805.01978). `bank` and `queries` are features `(n, dim)`, on the device of `bank_labels`,
    int64 `(n,)`, which computes, or on the CPU; a bank smaller than `k` votes as a whole.
    """
    device = bank_labels.device
    known, predicted = Bank(bank, device), []
    for chunk in parts(queries, device, max(1, min(CHUNK, CELLS // max(1, len(bank))))):
        similarity, neighbours = known.similarities(F.normalize(chunk.float(), dim=1)).topk(min(k, len(bank)), dim=1)
        # The largest weight is 1: nothing overflows, however small the temperature.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = torch.zeros(len(chunk), classes, device=chunk.device)
        votes.scatter_add_(1, bank_labels[neighbours], weights)
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)
