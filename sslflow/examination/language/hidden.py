"""Pseudo-perplexity: how well a method tells each word of a passage from all others (arXiv:1910.14659)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sslflow.data.formats import TextFormat
from sslflow.data.tokens import MASK, SPECIAL
from sslflow.networks.language import HiddenWords

BATCH = 256
"""Passages, each with one word hidden, at a time."""


@torch.no_grad()
def log_likelihood(words: HiddenWords, tokens: Tensor, format: TextFormat) -> np.ndarray:
    """Of each token of passages, int64 `(n, length)`, on the device of `words`, the logarithm of its probability when
    it is hidden, and with it the rest of its word, which would give it away (arXiv:2305.10588); float64 `(n, length)`,
    0 of the special ones."""
    rows, places = (tokens >= len(SPECIAL)).nonzero(as_tuple=True)
    continues = torch.zeros(format.vocabulary, dtype=torch.bool, device=tokens.device)
    continues[list(format.inside)] = True
    begins = (~continues[tokens]).cumsum(1)
    found = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    for row, at in zip(rows.split(BATCH), places.split(BATCH), strict=True):
        whole = tokens[row]
        own = begins[row] == begins[row, at][:, None]
        seen = torch.where(own & (place >= at[:, None]), MASK, whole)
        asked = place == at[:, None]
        right = whole.gather(1, at[:, None])[:, 0]
        found[row, at] = -torch.nn.functional.cross_entropy(words(seen, asked).float(), right, reduction="none").double()
    return found.cpu().numpy()


def perplexity(logs: np.ndarray, tokens: np.ndarray) -> float:
    """The inverse of the geometric mean of the words' probabilities, of whose logarithms `logs` are, `(n, length)`."""
    return math.exp(-logs.sum() / max(1, (tokens >= len(SPECIAL)).sum()))
