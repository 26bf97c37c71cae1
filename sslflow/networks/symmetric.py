"""What two encoders of different things learn from pairs: to find each one's own partner among those of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.runtime.device import full_precision


@full_precision
def symmetric_info_nce(za: Tensor, zb: Tensor, scale: Tensor | float, same: Tensor | None = None) -> Tensor:
    """Cross entropy of finding `zb[i]` for `za[i]` among all of `zb`, and `za[i]` for `zb[i]`, both `(n, dim)`, by
    cosine similarity times `scale`, which may be learnt: scalar, the mean of both ways (arXiv:2103.00020); at random
    it is about ln n.

    Where `same`, bool `(n, n)`, is true, row and column fit each other as well as their own partners do, such as two
    images with the same caption, and are no wrong answer: they are left out. Its diagonal is not looked at.
    """
    own = torch.arange(len(za), device=za.device)
    logits = scale * F.normalize(za, dim=1) @ F.normalize(zb, dim=1).T
    if same is not None:
        logits = logits.masked_fill(same & (own[:, None] != own), -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
