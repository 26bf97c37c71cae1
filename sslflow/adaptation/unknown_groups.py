"""Groups among a target's images that were judged unknown."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.adaptation.method import Judged
from sslflow.adaptation.task import UNKNOWN
from sslflow.clustering.groups import discover
from sslflow.runtime.rng import derive


def unknown_groups(judged: Judged, features: Tensor, seed: int) -> Tensor:
    """Group of each image that was judged unknown, by its features `(n, dim)`: from 0, −1 for the others, int64 `(n,)`,
    on the CPU."""
    rejected = judged.decisions == UNKNOWN
    known = (features[~rejected], judged.classes[~rejected]) if not rejected.all() else ()
    column = torch.full_like(judged.decisions, -1)
    column[rejected] = discover(features[rejected], derive(seed, "groups"), *known).labels
    return column.cpu()
