"""Which of several classifiers suits unlabelled images best: the one whose answers form dense neighbourhoods."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE = 3000
"""Images at most, evenly spread over all: each is compared with each other one."""
TEMPERATURE = 0.05


@torch.no_grad()
def neighbourhood_density(probabilities: Tensor) -> float:
    """Soft neighbourhood density of answers `(n, k)` (arXiv:2108.10860), in [0, 1]: the higher, the more other images
    each answer is like.

    The mean entropy of the similarities of an image's answer to those of the others, as a share of the largest. An
    answer that is the same for all images has the highest: compare classifiers of the same classes only.
    """
    answers = F.normalize(probabilities.float(), dim=1)
    answers = answers[:: -(-len(answers) // SAMPLE)]
    if len(answers) < 3:
        return 0.0
    alike = (answers @ answers.T / TEMPERATURE).fill_diagonal_(-torch.inf).softmax(dim=1)
    entropy = -torch.special.xlogy(alike, alike).sum(dim=1).mean()
    return float(entropy / torch.tensor(len(answers) - 1.0).log())
