"""What DANCE asks of the target's features: near neighbours, and an entropy that is clearly low or high
(arXiv:2002.07953)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_FLOOR = 1e-5
"""Added within logarithms, as the authors' code has it."""
VOTERS = 20_000
"""Images at most that neighbours are sought among: with more, every image with every other takes too long."""
CHUNK = 2048


class Memory(nn.Module):
    """The features of all target images as they were last seen, `(size, dim)` of length 1; zeros before."""

    features: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, dim))
        self._noticed: tuple[Tensor, Tensor] | None = None

    def notice(self, rows: Tensor, features: Tensor) -> None:
        """Keep what a step saw until `move`: its own loss still needs the memory as it was."""
        self._noticed = rows, features.detach()

    def move(self) -> None:
        """Put what was noticed last into the memory."""
        if self._noticed is not None:
            self.put(*self._noticed)

    @torch.no_grad()
    def put(self, rows: Tensor, features: Tensor) -> None:
        """Replace the features of the rows given."""
        self.features[rows] = F.normalize(features.detach().float(), dim=1)


def neighbourhood_entropy(
    features: Tensor, logits: Tensor, memory: Tensor, rows: Tensor, temperature: float, hidden: float = -math.inf
) -> Tensor:
    """Mean entropy of whom each feature `(n, dim)` is like, scalar: which of the classes, whose `logits` `(n, k)` are
    cosines over the temperature, of the other images of the batch and of the images of the memory `(m, dim)`.

    Features have length 1. Left out are an image itself and, in the memory, all images of the batch, whose `rows` these
    are: `hidden` stands in place of their logits.
    """
    remembered = (features @ memory.T / temperature).index_fill(1, rows, hidden)
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    batch = (features @ features.T / temperature).masked_fill(itself, hidden)
    return _entropy(torch.cat([logits, remembered, batch], dim=1)).mean()


def entropy_separation(logits: Tensor, boundary: float, margin: float) -> Tensor:
    """Minus the mean distance of the entropies of logits `(n, k)` from `boundary`, scalar; distances within the margin
    count as the margin, so that who is undecided is left alone."""
    return -(_entropy(logits) - boundary).abs().clamp_min(margin).mean()


def _entropy(logits: Tensor) -> Tensor:
    shares = logits.softmax(dim=1)
    return -(shares * (shares + LOG_FLOOR).log()).sum(dim=1)


@torch.no_grad()
def averaged(values: Tensor, features: Tensor, neighbours: int) -> Tensor:
    """Mean of the values `(n, k)` of each image and its nearest others, `neighbours` together, by the cosine of
    features `(n, dim)`. Of more than `VOTERS` images, every so many-th is looked at."""
    features = F.normalize(features, dim=1)
    voters = torch.arange(0, len(features), -(-len(features) // VOTERS), device=features.device)
    found = []
    for chunk in features.split(CHUNK):
        nearest = (chunk @ features[voters].T).topk(min(neighbours, len(voters)), dim=1).indices
        found.append(values[voters[nearest]].mean(dim=1))
    return torch.cat(found)
