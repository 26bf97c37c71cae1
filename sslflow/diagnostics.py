"""Label-free signs of a healthy or a collapsed representation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rankme(features: Tensor) -> float:
    """Effective rank of features `(n, dim)`: exp of the entropy of their singular values' shares (arXiv:2210.02885),
    in [1, min(n, dim)].

    1 means that all features lie on one line: collapse. Raises `ValueError` for features that are not finite.
    """
    _require_finite(features)
    singular = torch.linalg.svdvals(features.float())
    shares = singular / singular.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def feature_std(features: Tensor) -> float:
    """Mean over dimensions of the standard deviation of the normalised features `(n, dim)`, times sqrt(dim), as in
    SimSiam (arXiv:2011.10566).

    About 1 for features spread evenly over the sphere, 0 when all are the same: collapse.
    """
    _require_finite(features)
    normalised = F.normalize(features.float(), dim=1)
    return float(normalised.std(dim=0, correction=0).mean() * features.shape[1] ** 0.5)


def _require_finite(features: Tensor) -> None:
    if not features.isfinite().all():
        rows = int((~features.isfinite().all(dim=1)).sum())
        raise ValueError(f"{rows} of {len(features)} features are not finite")
