"""What is learnt from pairs: to find each one's own partner among those of a batch, of an image and something else, or
of two views."""

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
    logits = scale * F.normalize(za, dim=1) @ F.normalize(zb, dim=1).T
    return both_ways(logits, None if same is None else same & ~torch.eye(len(za), dtype=torch.bool, device=za.device))


@full_precision
def both_ways(logits: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Cross entropy of finding row i's column i and column i's row i in `logits` `(n, n)`: scalar, the mean of both;
    about ln n at random. What is `hidden`, bool `(n, n)`, is no answer."""
    if hidden is not None:
        logits = logits.masked_fill(hidden, -torch.inf)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@full_precision
def nt_xent(za: Tensor, zb: Tensor, temperature: float, decoupled: bool = False) -> Tensor:
    """Normalised, temperature-scaled cross entropy of `za[i]`, `zb[i]`, both `(n, dim)`: scalar, the mean over all 2n
    anchors.

    Each anchor's other view stands against the 2n − 2 views of other images; at random it is about ln(2n − 1). With
    `decoupled` the other view is no part of the sum that it is compared with, and that is ln(2n − 2): where it is told
    from all others already, the gradient does not vanish, and the loss may fall below 0.
    """
    z = F.normalize(torch.cat([za, zb]), dim=1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    every, partner = torch.arange(len(z), device=z.device), torch.arange(len(z), device=z.device).roll(len(za))
    if not decoupled:
        return F.cross_entropy(similarity, partner)
    right = similarity[every, partner]
    return (similarity.index_put((every, partner), right.new_tensor(-torch.inf)).logsumexp(dim=1) - right).mean()
