"""word2vec: vectors of words, so that each tells its neighbours from words drawn by chance (arXiv:1310.4546)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.formats import TextFormat
from sslflow.networks.text import TextEncoder
from sslflow.runtime.distributed import all_reduce_sum, world_size
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.text import WindowViews

TOGETHER = 32
"""Passages that are compared at a time, of about the same length, with little padding."""
MOST = 64
"""Terms of the loss by which a word's vector moves in a step, at most."""


class Word2Vec(Method):
    """Settings: `architecture`: skip_gram, a word tells each of its neighbours; cbow, the mean of its neighbours tells
    a word. `dim`, width of the vectors; `negatives`, how many words by chance stand against each neighbour.

    Its encoder is its own, whatever the section `encoder` says: the mean of word vectors. Words drawn by chance are
    shared by all words of a passage and weighted accordingly (arXiv:1604.04661), which makes them matrix products. The
    loss is a mean over pairs, but a word's vector moves by the sum over its own (`of_pairs`): so rates are those of the
    papers, and a rare word's steps aren't smaller by all the pairs that it has no part in.
    """

    Views = WindowViews

    encoder: TextEncoder  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        tokens: TextFormat,
        *,
        architecture: Literal["skip_gram", "cbow"] = "skip_gram",
        dim: Count = 100,
        negatives: Count = 5,
    ) -> None:
        super().__init__()
        self.encoder = TextEncoder(tokens.vocabulary, tokens.length, dim=dim, depth=0, heads=1, standardise=True)
        self.contexts = nn.Embedding(tokens.vocabulary, dim)
        nn.init.uniform_(self.encoder.words.weight, -0.5 / dim, 0.5 / dim)
        nn.init.uniform_(self.contexts.weight, -0.5 / dim, 0.5 / dim)
        self.architecture, self.negatives = architecture, negatives

    def training_step(self, batch: Batch) -> Losses:
        lengths, order = (batch.views[0] != 0).sum(1).sort(stable=True)
        words, reach, drawn = (view[order] for view in batch.views)
        seen = torch.cat([words, drawn], 1)
        inner, contexts = self.encoder.words(words), self.contexts(seen)
        outer, against = contexts.split([words.shape[1], drawn.shape[1]], 1)
        loss = skip_gram_loss if self.architecture == "skip_gram" else cbow_loss
        longest = lengths[[*range(TOGETHER - 1, len(order) - 1, TOGETHER), -1]].clamp_min(1).tolist()
        parts = zip(*(all_of.split(TOGETHER) for all_of in (words, reach, inner, outer, against)), strict=True)
        totals, counts = [], []
        for (of, far, one, other, chance), length in zip(parts, longest, strict=True):
            near = neighbours(of[:, :length], far[:, :length])
            total, count = loss(one[:, :length], other[:, :length], chance, near, self.negatives)
            totals.append(total)
            counts.append(F.pad(count, (0, words.shape[1] - length)))
        terms = torch.cat(counts)
        every = all_reduce_sum(terms.sum()).clamp_min(1)
        if inner.requires_grad:
            by_chance = terms.sum(1, keepdim=True).expand(drawn.shape) * (self.negatives / drawn.shape[1])
            inner.register_hook(of_pairs(words, terms, self.encoder.vocabulary, every))
            contexts.register_hook(of_pairs(seen, torch.cat([terms, by_chance], 1), self.encoder.vocabulary, every))
        even = math.log(1 + self.negatives) - self.negatives * math.log(self.negatives / (1 + self.negatives))
        return {"loss": torch.stack(totals).sum() * world_size() / every, "chance_loss": every.new_tensor(even)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Passages, and the one of the batch whose words' mean is most alike."""
        words, _, _ = batch.views
        features = F.normalize(self.encoder(words), dim=1)
        nearest = (features @ features.T).fill_diagonal_(-1).argmax(1)
        return {"words": words, "most alike": words[nearest]}


def neighbours(words: Tensor, reach: Tensor) -> Tensor:
    """For words `(n, length)`, 0 where there is none, which are whose neighbours, float `(n, length, length)`: row i
    has 1 for those at most `reach[i]` away from word i, but not itself."""
    place = torch.arange(words.shape[1], device=words.device)
    apart = (place[:, None] - place).abs()
    there = words != 0
    return ((apart <= reach[..., None]) & (apart > 0) & there[:, None] & there[..., None]).float()


class LogSigmoid(torch.autograd.Function):
    """ln σ(x). PyTorch's own takes ten times as long on a CPU."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        likely = logits.sigmoid()
        ctx.save_for_backward(likely)
        return likely.clamp_min(torch.finfo(likely.dtype).tiny).log_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (1 - ctx.saved_tensors[0])


def log_sigmoid(logits: Tensor) -> Tensor:
    """ln σ(x) of tensors of any shape."""
    return LogSigmoid.apply(logits)  # pyright: ignore[reportReturnType]


def of_pairs(numbers: Tensor, terms: Tensor, vocabulary: int, every: Tensor) -> Callable[[Tensor], Tensor]:
    """What makes of the gradients of word vectors, `(…, dim)`, by a mean over `every` term, those by a word's own terms
    in all processes: their sum, or `MOST` times their mean where there are more. Without that limit, steps on frequent
    words, which are as large as all their terms together, grow beyond all bounds in large batches. Which words they
    are and in how many terms each has a part, `(…)`."""
    times = terms.new_zeros(vocabulary).index_add_(0, numbers.flatten(), terms.flatten())
    share = every * MOST / all_reduce_sum(times).clamp_min(MOST)
    return lambda gradient: gradient * share[numbers].unsqueeze(-1)


def skip_gram_loss(
    inner: Tensor, outer: Tensor, against: Tensor, near: Tensor, negatives: int
) -> tuple[Tensor, Tensor]:
    """Sum over words and their neighbours of −ln σ(inner · outer) and `negatives` times the mean over the words by
    chance of −ln σ(−inner · against), a scalar; and in how many terms of it each word has a part, `(n, length)`.

    `inner`, `outer` are vectors of words as such and as neighbours, `(n, length, dim)`; `against`, of words by chance
    as neighbours, `(n, drawn, dim)`; `near` from `neighbours`."""
    counted = near.sum(2)
    right = (log_sigmoid(inner @ outer.mT) * near).sum()
    wrong = (log_sigmoid(-inner @ against.mT).mean(2) * counted).sum()
    return -right - negatives * wrong, counted


def cbow_loss(inner: Tensor, outer: Tensor, against: Tensor, near: Tensor, negatives: int) -> tuple[Tensor, Tensor]:
    """The same with the mean of a word's neighbours in place of each, over words that have some."""
    counted = near.sum(2)
    around = near @ inner / counted.clamp_min(1)[..., None]
    right = log_sigmoid((around * outer).sum(2))
    wrong = log_sigmoid(-around @ against.mT).mean(2)
    some = (counted > 0).float()
    return -((right + negatives * wrong) * some).sum(), some
