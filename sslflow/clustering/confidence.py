"""How sure it is that an image belongs to its cluster, from how near the nearest other one is."""

from __future__ import annotations

from torch import Tensor


def confidence(distance: Tensor, margin: Tensor) -> Tensor:
    """1 − d₁/d₂ of each row, `(n,)`, in [0, 1]: `distance` is d₁, to the nearest centroid, and `margin` d₂ − d₁, how
    much further the second nearest is. 0: halfway between two clusters, or there is no second; 1: on the centroid.

    It grows with the share of right pseudo-labels, but is none.
    """
    return margin / (distance + margin).clamp_min(1e-12)
