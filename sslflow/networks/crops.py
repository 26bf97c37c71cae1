"""Many crops of each image: how they pass through a network, and how one's answer is predicted from the others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def forward_crops(network: nn.Module, crops: Sequence[Tensor]) -> Tensor:
    """What the network makes of each crop, `(crops, n, dim)`, from `(n, c, h, w)` each; neighbours of one size pass
    through it together."""
    passes = [torch.cat(list(same)) for _, same in itertools.groupby(crops, key=lambda crop: crop.shape[-1])]
    return torch.cat([network(images) for images in passes]).unflatten(0, (len(crops), -1))


def swapped_cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """Mean cross entropy of the logits of every crop, `(crops, n, k)`, with the targets of every other one, scalar.

    Targets are probabilities `(t, n, k)` of the first t crops; crop i is never compared with target i.
    """
    logs = F.log_softmax(logits, dim=2)
    pairs = -torch.stack([(crop * logs).sum(dim=2).mean(dim=1) for crop in targets])
    others = 1 - torch.eye(*pairs.shape, device=pairs.device, dtype=pairs.dtype)
    return (pairs * others).sum() / others.sum()
