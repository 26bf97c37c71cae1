"""Small networks on top of an encoder."""

from __future__ import annotations

import itertools

from torch import nn


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of the widths given, input first, with BatchNorm and ReLU between them; the last layer is bare."""
    layers: list[nn.Module] = []
    for narrow, (before, after) in enumerate(itertools.pairwise(widths), start=2):
        last = narrow == len(widths)
        layers.append(nn.Linear(before, after, bias=last))
        if not last:
            layers += [nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
