"""Small networks on top of an encoder."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.runtime.device import full_precision


def mlp(*widths: int, norm: bool = True, last_norm: bool = False) -> nn.Sequential:
    """Linear layers of the widths given, input first, with BatchNorm and ReLU between them, or without `norm` ReLU
    alone; the last layer is bare, or with `last_norm` followed by a BatchNorm without weights."""
    layers: list[nn.Module] = []
    for narrow, (before, after) in enumerate(itertools.pairwise(widths), start=2):
        last = narrow == len(widths)
        layers.append(nn.Linear(before, after, bias=not (last_norm if last else norm)))
        if not last:
            layers += [*([nn.BatchNorm1d(after)] if norm else []), nn.ReLU(inplace=True)]
        elif last_norm:
            layers.append(nn.BatchNorm1d(after, affine=False))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Directions that inputs are compared with: cosine similarities `(n, count)` of inputs `(n, dim)`."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Cosine similarities, in float32."""
        return _cosines(inputs, self.weight)


@full_precision
def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
