"""Does a passage follow another? Each right pair is set against wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.formats import TextFormat
from sslflow.data.splits import TEST
from sslflow.data.tokens import PAD
from sslflow.runtime.rng import generator

WRONG = ("other", "same", "order")
"""What takes the place of the passage that follows: one of another document; another one of the same document, whose
topic it shares; or both passages change places."""
Score = Callable[[Tensor, Tensor], Tensor]
"""How well second passages follow first ones, both int64 `(n, length)`: float `(n,)`."""


@dataclass(frozen=True)
class Questions:
    """Test passages that one follows, `rows` `(n,)`; the passages and what follows them, int64 `(n, length)`; and what
    doesn't, for passages where there is such a one, −1 elsewhere: numbers of questions whose following passage it
    is, int64 `(n,)`."""

    rows: np.ndarray
    first: Tensor
    second: Tensor
    other: Tensor
    same: Tensor


def questions(dataset: Dataset[TextFormat], most: int, seed: int) -> Questions:
    """At most so many questions about test passages, the same for all rows of a seed."""
    rows = dataset.rows(TEST)
    read = dataset.read(rows)
    has_one = read["following"][:, 0] != PAD
    chosen = has_one.nonzero()[:, 0]
    numbers = generator(seed, "language")
    chosen = chosen[torch.randperm(len(chosen), generator=numbers)[:most].sort().values]
    first, second = read["tokens"][chosen].long(), read["following"][chosen].long()
    groups = read["groups"][chosen]
    noise = torch.rand(len(chosen), len(chosen), generator=numbers)
    alike = groups[:, None] == groups
    repeats = (second[None] == first[:, None]).all(2) | (second[None] == second[:, None]).all(2)
    return Questions(
        rows[chosen.numpy()], first, second, _one_of(~alike & ~repeats, noise), _one_of(alike & ~repeats, noise)
    )


def answers(asked: Questions, score: Score) -> dict[str, np.ndarray]:
    """Whether the right pair scores higher than each wrong one: 1, at the same score a half, as at chance, or 0; NaN
    where there is no wrong pair. By kinds of wrong ones, float64 `(n,)`."""
    right = score(asked.first, asked.second)
    found = {"order": _won(right, score(asked.second, asked.first))}
    for name in ("other", "same"):
        chosen: Tensor = getattr(asked, name)
        won = _won(right, score(asked.first, asked.second[chosen.clamp_min(0)]))
        found[name] = np.where(chosen.numpy() >= 0, won, np.nan)
    return {name: found[name] for name in WRONG}


def _one_of(allowed: Tensor, noise: Tensor) -> Tensor:
    return (
        torch.where(allowed.any(1), noise.masked_fill(~allowed, -1.0).argmax(1), -1)
        if len(allowed)
        else torch.zeros(0, dtype=torch.int64)
    )


def _won(right: Tensor, wrong: Tensor) -> np.ndarray:
    return ((right > wrong).double() + 0.5 * (right == wrong)).cpu().numpy()
