"""When to say that an image is of no class that is known: a threshold that is found without labels.

What unknown images would look like is simulated: each target image loses its most probable class, as if the source had
lacked it. The entropies that are left are those of unknown images under this very domain shift and this very
classifier; no label of the target is needed for that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.adaptation.method import entropy_share

NOTHING = 2.0
"""A threshold above every share of an entropy: no image is rejected."""
HALF = 0.5
"""Of the largest entropy: the threshold that DANCE and others fix."""
TAIL = 0.2
"""Share of the simulated entropies that must lie above a threshold where shares are compared: fewer are noise."""
FLOOR = 1e-4
"""Entropies count as at least this share: below, their logarithm tells apart what is certain anyway."""
STEPS = 49
"""Thresholds that are compared."""


def without_best(probabilities: Tensor) -> Tensor:
    """Entropy, as a share of what it can be, of probabilities `(n, k)` after each row has lost its largest: `(n,)`;
    ones where fewer than two are left."""
    if probabilities.shape[1] < 3:
        return torch.ones(len(probabilities), device=probabilities.device)
    others = torch.arange(probabilities.shape[1], device=probabilities.device) != probabilities.argmax(dim=1)[:, None]
    rest = probabilities[others].view(len(probabilities), -1)
    return entropy_share(rest / rest.sum(dim=1, keepdim=True).clamp_min(torch.finfo(rest.dtype).tiny))


def best_expected(entropy: Tensor, simulated: Tensor) -> float:
    """The threshold with the best harmonic mean expected of known images kept and unknown ones rejected.

    The entropies `(n,)` are a mixture of known and unknown images; the unknown part can be at most so large that its
    simulated distribution fits below that of all (as in learning from positive and unlabelled data). Where all
    simulated entropies are the largest there is, as of two classes, nothing is known of unknown images: `HALF`.
    """
    if simulated.min() >= 1:
        return HALF
    grid = torch.linspace(0, 1, STEPS + 2, device=entropy.device)[1:-1]
    above = (entropy > grid[:, None]).float().mean(dim=1)
    unknown = (simulated > grid[:, None]).float().mean(dim=1)
    enough = unknown >= TAIL
    if not enough.any():
        return HALF
    share = float((above[enough] / unknown[enough]).min().clamp(0, 1))
    kept = ((1 - above) - share * (1 - unknown)) / max(1 - share, FLOOR)
    kept = kept.clamp(0, 1)
    expected = 2 * kept * unknown / (kept + unknown).clamp_min(FLOOR)
    return float(grid[expected.argmax()])
