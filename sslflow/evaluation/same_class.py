"""Retrieval by frozen features: how high images of a query's class stand among all, nearest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.evaluation.bank import Bank
from sslflow.runtime.parts import parts

DEPTHS = (1, 5)
CELLS = 2**22
"""Similarities at a time: the table of queries by bank is never whole."""
ROWS = 4096
"""Images whose features are checked at a time."""


@dataclass(frozen=True)
class Found:
    """Of each query, `(queries,)`, in [0, 1]."""

    average_precision: np.ndarray
    recall: dict[int, np.ndarray]
    """Depth k → the probability that an image of its class is among the k nearest; without the depths to which the
    bank doesn't reach."""


@torch.no_grad()
def find_same(bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, cells: int = CELLS) -> Found:
    """What each query finds in the bank, ranked by cosine: average precision over the whole ranking, and recall at k as
    in metric learning (arXiv:1511.06452).

    `bank` and `queries` are features `(n, dim)`, on the labels' device or on the CPU, labels int64 `(n,)`. Images at
    the same distance stand in every order with the same probability, and each number is the mean over these (McSherry
    and Najork 2008): features that are all alike are as good as chance. A query of a class that the bank has none of
    finds nothing: 0. Raises `ValueError` for features that are not finite.
    """
    for name, features in {"bank": bank, "queries": queries}.items():
        if wrong := sum(int((~part.isfinite().all(dim=1)).sum()) for part in features.split(ROWS)):
            raise ValueError(f"{name}: the features of {wrong} of {len(features)} examples are not finite")
    device = bank_labels.device
    known = Bank(bank, device)
    depths = [depth for depth in DEPTHS if depth < len(bank)]
    precision, recall = [], {depth: [] for depth in depths}
    chunk = max(1, cells // len(bank))
    for features, labels in zip(parts(queries, device, chunk), query_labels.split(chunk), strict=True):
        similarity, order = known.similarities(F.normalize(features.float(), dim=1)).sort(dim=1, descending=True)
        wanted = bank_labels[order] == labels[:, None]
        precision.append(_average_precision(similarity, wanted).cpu())
        for depth in depths:
            recall[depth].append(_recall(similarity, wanted, depth).cpu())
    return Found(torch.cat(precision).numpy(), {depth: torch.cat(found).numpy() for depth, found in recall.items()})


def _average_precision(scores: Tensor, wanted: Tensor) -> Tensor:
    """Of rankings `(n, items)`, falling scores and whether each item is looked for, `(n,)`."""
    met = wanted.cumsum(dim=1)
    total = (wanted * met / torch.arange(1, wanted.shape[1] + 1, device=wanted.device)).sum(dim=1, dtype=torch.float64)
    same = scores[:, 1:] == scores[:, :-1]
    tied = F.pad(same, (1, 0)) | F.pad(same, (0, 1))
    row, place = tied.nonzero(as_tuple=True)
    if len(row):
        first = ~F.pad(same, (1, 0))[row, place]
        run = first.cumsum(dim=0) - 1
        own, before = wanted[row, place], met[row, place]
        size, hits = torch.bincount(run), torch.bincount(run, weights=own.double())
        above, earlier = place[first][run], (before - own.long())[first][run]
        # Beside a hit at its own place, those before it in its run are hits as often as the rest of the run's are.
        others = (place - above) * ((hits - 1).clamp_min(0) / (size - 1))[run]
        expected = (hits / size)[run] * (earlier + others + 1) / (place + 1)
        total.index_add_(0, row, expected - (own * before / (place + 1)).double())
    return total / met[:, -1].clamp_min(1)


def _recall(scores: Tensor, wanted: Tensor, depth: int) -> Tensor:
    """The probability that an item that is looked for is among the first `depth`, `(n,)` float64."""
    tied = scores == scores[:, depth - 1 : depth]
    above = (scores > scores[:, depth - 1 : depth]).sum(dim=1)
    size, hits = tied.sum(dim=1), (tied & wanted).sum(dim=1)
    sure = (wanted[:, :depth] & (torch.arange(depth, device=wanted.device) < above[:, None])).any(dim=1)
    none = torch.ones(len(size), dtype=torch.float64, device=size.device)
    for drawn in range(depth):
        left = (size - hits - drawn).clamp_min(0) / (size - drawn).clamp_min(1)
        none = torch.where(drawn < depth - above, none * left, none)
    return torch.where(sure, 1.0, 1 - none)
