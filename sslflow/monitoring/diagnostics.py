"""Label-free signs of a healthy or a collapsed representation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.features.extract import NotFinite

FLOAT_NOISE = 1e-6
"""Directions with less of the features' size than this may be nothing but float32's rounding."""


def rankme(features: Tensor) -> float:
    """Effective rank of features `(n, dim)`: exp of the entropy of their singular values' shares (arXiv:2210.02885),
    in [1, min(n, dim)].

    1 means that all features lie on one line: collapse. Raises `ValueError` for features that are not finite.
    """
    _require_finite(features)
    singular = torch.linalg.svdvals(features.float())
    shares = singular / singular.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def alpha_req(features: Tensor) -> float:
    """How fast the variances of features `(n, dim)` along their principal directions fall: a, where the i-th largest
    goes like i^−a (α-ReQ, arXiv:2202.05808).

    About 1 is healthy; far below it, noise fills directions; far above it, few directions carry all. All features the
    same count as a single direction, a fall to what floats can't tell from nothing; without a second direction to
    compare with it is 0. Raises `ValueError` for features that are not finite.
    """
    _require_finite(features)
    features = features.float()
    # The tail of a sample's spectrum falls off by chance, as it runs out of images.
    kept = min(len(features) - 1, features.shape[1]) // 2 + 1
    if kept < 2:
        return 0.0
    singular = torch.linalg.svdvals(features - features.mean(dim=0))[:kept]
    singular = singular * (singular > FLOAT_NOISE * features.norm())
    variances = (singular / singular[0].clamp_min(torch.finfo(torch.float32).tiny)).square()
    variances[0] = 1.0
    slope = variances.clamp_min(FLOAT_NOISE**2).log()
    places = torch.arange(1, kept + 1, device=features.device, dtype=torch.float32)
    # Weights 1/i give every stretch of log i the same say, however many directions it holds.
    x, weights = places.log(), 1 / places / (1 / places).sum()
    x, slope = x - (weights * x).sum(), slope - (weights * slope).sum()
    return float(-(weights * x * slope).sum() / (weights * x.square()).sum())


def feature_std(features: Tensor) -> float:
    """Mean over dimensions of the standard deviation of the normalised features `(n, dim)`, times sqrt(dim), as in
    SimSiam (arXiv:2011.10566).

    About 1 for features spread evenly over the sphere, 0 when all are the same: collapse.
    """
    _require_finite(features)
    normalised = F.normalize(features.float(), dim=1)
    return float(normalised.std(dim=0, correction=0).mean() * features.shape[1] ** 0.5)


def alignment(za: Tensor, zb: Tensor) -> float:
    """Mean squared distance of the normalised features `za[i]`, `zb[i]`, both `(n, dim)`, of two views of an image, in
    [0, 4] (arXiv:2005.10242).

    0 where views don't matter; only together with `uniformity` is that a good sign. Raises `ValueError` for features
    that are not finite.
    """
    _require_finite(za)
    _require_finite(zb)
    za, zb = (F.normalize(z.float(), dim=1) for z in (za, zb))
    return float((za - zb).square().sum(dim=1).mean())


def uniformity(features: Tensor) -> float:
    """How evenly the normalised features `(n, dim)` fill the sphere: log of the mean over pairs of exp(−2 d²), d their
    distance (arXiv:2005.10242), in [−8, 0].

    About −4 where pairs stand at right angles; 0 when all features are the same, or where there is one only. Raises
    `ValueError` for features that are not finite.
    """
    _require_finite(features)
    if len(features) < 2:
        return 0.0
    distances = torch.pdist(F.normalize(features.float(), dim=1))
    return float((-2 * distances.square()).exp().mean().log())


def _require_finite(features: Tensor) -> None:
    if not features.isfinite().all():
        rows = int((~features.isfinite().all(dim=1)).sum())
        raise NotFinite(f"the features of {rows} of {len(features)} examples are not finite")
