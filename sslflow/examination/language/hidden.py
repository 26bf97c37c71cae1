"""Pseudo-perplexity: how well a method tells each word of a passage from all others (arXiv:1910.14659)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.formats import TextFormat
from sslflow.data.tokens import MASK, SPECIAL
from sslflow.networks.language import HiddenWords

BATCH = 256
"""Passages, each with one word hidden, at a time."""


@torch.no_grad()
def hidden_words(words: HiddenWords, tokens: Tensor, format: TextFormat) -> tuple[np.ndarray, np.ndarray]:
    """Of each token of passages, int64 `(n, length)`, on the device of `words`, the logarithm of its probability when
    it is hidden, and with it the rest of its word, which would give it away (arXiv:2305.10588), float64 `(n, length)`,
    and the likeliest token in its place, int64 `(n, length)`; both 0 of the special ones."""
    rows, places = (tokens >= len(SPECIAL)).nonzero(as_tuple=True)
    continues = torch.zeros(format.vocabulary, dtype=torch.bool, device=tokens.device)
    continues[list(format.inside)] = True
    begins = (~continues[tokens]).cumsum(1)
    found = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    best = torch.zeros_like(tokens)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    for row, at in zip(rows.split(BATCH), places.split(BATCH), strict=True):
        whole = tokens[row]
        own = begins[row] == begins[row, at][:, None]
        seen = torch.where(own & (place >= at[:, None]), MASK, whole)
        asked = place == at[:, None]
        right = whole.gather(1, at[:, None])[:, 0]
        logits = words(seen, asked).float()
        found[row, at] = -F.cross_entropy(logits, right, reduction="none").double()
        best[row, at] = logits.argmax(1)
    return found.cpu().numpy(), best.cpu().numpy()


def perplexity(logs: np.ndarray, tokens: np.ndarray) -> float:
    """The inverse of the geometric mean of the words' probabilities, of whose logarithms `logs` are, `(n, length)`."""
    return math.exp(-logs.sum() / max(1, (tokens >= len(SPECIAL)).sum()))
