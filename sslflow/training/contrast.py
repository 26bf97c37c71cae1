"""The contrastive loss of two views, whatever they are of (arXiv:2002.05709; decoupled: arXiv:2110.06848)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.runtime.device import full_precision


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
