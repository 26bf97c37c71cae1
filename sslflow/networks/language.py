"""Heads of an encoder of text: which word is hidden, and whether a passage follows another; with their losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.tokens import BETWEEN, SPECIAL
from sslflow.networks.text import TextEncoder
from sslflow.runtime.distributed import all_reduce_sum, world_size

NOT_ASKED = -1
"""In place of an answer that isn't asked for."""


class WordHead(nn.Module):
    """What an encoder makes of tokens, `(k, dim)`, to a logit for each word, `(k, vocabulary)`: a layer, then the
    likeness to the encoder's own word vectors (arXiv:1608.05859), which it is given."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.GELU(), nn.LayerNorm(encoder.dim))
        self.bias = nn.Parameter(torch.zeros(encoder.vocabulary))

    def forward(self, tokens: Tensor, words: Tensor) -> Tensor:
        return F.linear(self.layer(tokens), words, self.bias)


class HiddenWords(nn.Module):
    """An encoder and its `WordHead`, which tell hidden words."""

    shares: Tensor

    def __init__(self, encoder: TextEncoder, counts: tuple[int, ...]) -> None:
        """`counts`: how often each word occurs, from which the chance level is known."""
        super().__init__()
        self.encoder, self.head = encoder, WordHead(encoder)
        occurrences = torch.tensor(counts or (0,) * encoder.vocabulary, dtype=torch.float64) + 1
        self.register_buffer("shares", (occurrences / occurrences.sum()).float(), persistent=False)

    def forward(self, tokens: Tensor, asked: Tensor) -> Tensor:
        """Logits of all words `(k, vocabulary)` at the k places of tokens `(n, length)` that are `asked`, bool
        `(n, length)`."""
        return self.head(self.encoder.tokens(tokens)[asked], self.encoder.words.weight)


class Follows(nn.Module):
    """Whether the second passage of a pair follows the first, from what an encoder makes of both together: how alike
    the means over the tokens of either are, each first seen by a layer of its own. BERT reads `[CLS]`
    alone; this begins with a likeness that tells something from the first step on, which little text needs."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm1d(dim, affine=False)  # without what all passages have in common
        self.answer = nn.Linear(dim, 1)
        for view in (self.first, self.second):
            nn.init.eye_(view.weight)
        nn.init.constant_(self.answer.weight, dim**-0.5)

    def forward(self, found: Tensor, pairs: Tensor) -> Tensor:
        """Logits `(n,)` from what was made of each token, `(n, length, dim)`, of pairs, int64 `(n, length)`."""
        words, ends = pairs >= len(SPECIAL), (pairs == BETWEEN).cumsum(1)
        first, second = (words & (ends == part) for part in (0, 1))
        # Where there is no second passage it isn't asked; a mean of nothing, 0, would move what all have in common.
        second = torch.where(second.any(1, keepdim=True), second, first)
        a, b = self.norm(torch.cat([_mean(found, first), _mean(found, second)])).chunk(2)
        return self.answer(self.first(a) * self.second(b))[:, 0]


def word_cross_entropy(logits: Tensor, answers: Tensor) -> Tensor:
    """Cross entropy of the logits `(k, vocabulary)` of hidden words, int64 `(k,)`: scalar, the mean over all of them in
    all processes, of which this process's part of the sum counts as many times as there are processes."""
    return F.cross_entropy(logits.float(), answers, reduction="sum") / _number(answers)


def follow_cross_entropy(logits: Tensor, follows: Tensor) -> Tensor:
    """Binary cross entropy of logits `(n,)` of whether passages follow, int64 `(n,)`, 1 or 0, or −1 where that isn't
    asked: scalar, the mean over all that are asked in all processes, as for words. Chance level is ln 2."""
    asked = follows != NOT_ASKED
    told = F.binary_cross_entropy_with_logits(logits.float(), (follows > 0).float(), reduction="none")
    return (told * asked).sum() / _number(follows[asked])


@torch.no_grad()
def share_right(right: Tensor) -> Tensor:
    """Share of bool `(k,)` that is true, as the losses count over processes: scalar."""
    return right.sum() / _number(right)


def _mean(found: Tensor, there: Tensor) -> Tensor:
    weight = there.unsqueeze(-1).to(found.dtype)
    return (found * weight).sum(1) / weight.sum(1).clamp_min(1)


def _number(rows: Tensor) -> Tensor:
    """How many rows each process has on average, at least one in all."""
    count = torch.tensor(float(len(rows)), device=rows.device)
    return all_reduce_sum(count).clamp_min(1) / world_size()
