"""word2vec: vectors of words, so that each tells its neighbours from words drawn by chance (arXiv:1310.4546)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.formats import TextFormat
from sslflow.networks.text import TextEncoder
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import all_reduce_sum, world_size
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.text import WindowViews

TOGETHER = 64
"""Passages that are compared at a time, of about the same length, with little padding, in what a processor's cache
holds."""
MOST = 64
"""Terms of the loss by which a word's vector moves in a step, at most. Without a limit, steps on frequent words, which
are as large as all their terms together, grow beyond all bounds in large batches."""


class Word2Vec(Method):
    """Settings: `architecture`: skip_gram, a word tells each of its neighbours; cbow, the mean of its neighbours tells
    a word. `dim`, width of the vectors; `negatives`, how many words by chance stand against each neighbour.

    Its encoder is its own, whatever the section `encoder` says: the mean of word vectors. Words drawn by chance are
    shared by all words of a passage and weighted accordingly (arXiv:1604.04661), which makes them matrix products. The
    loss is a mean over pairs, but a word's vector moves by the sum over its own, or `MOST` times their mean where there
    are more: so rates are those of the papers, and a rare word's steps aren't smaller by all the pairs that it has no
    part in.
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
        longest = lengths[[*range(TOGETHER - 1, len(order) - 1, TOGETHER), -1]].clamp_min(1).tolist()
        tables = self.encoder.words.weight, self.contexts.weight
        vectors, contexts = (table.detach() for table in tables)
        gradients, times = [torch.zeros_like(one) for one in (vectors, contexts)], vectors.new_zeros(2, len(vectors))
        total, count = vectors.new_zeros(()), vectors.new_zeros(())
        loss = skip_gram_loss if self.architecture == "skip_gram" else cbow_loss
        parts = zip(*(all_of.split(TOGETHER) for all_of in (words, reach, drawn)), longest, strict=True)
        for of, far, chance, length in parts:
            of, near = of[:, :length], neighbours(of[:, :length], far[:, :length]).to(vectors.dtype)
            seen = F.embedding(of, vectors), F.embedding(of, contexts), F.embedding(chance, contexts)
            found, terms, *own = loss(*seen, near, self.negatives)
            by_chance = terms.sum(1, keepdim=True).expand(chance.shape) * (self.negatives / chance.shape[1])
            moved = zip((0, 1, 1), (of, of, chance), own, (terms, terms, by_chance), strict=True)
            for table, numbers, gradient, part in moved:
                gradients[table].index_add_(0, numbers.flatten(), gradient.flatten(0, 1))
                times[table].index_add_(0, numbers.flatten(), part.flatten())
            total, count = total + found, count + terms.sum()
        every = all_reduce_sum(count).clamp_min(1)
        shares = world_size() * MOST / all_reduce_sum(times).clamp_min(MOST)
        even = math.log(1 + self.negatives) - self.negatives * math.log(self.negatives / (1 + self.negatives))
        mean: Any = OfPairs.apply(total * world_size() / every, *gradients, shares, *tables)
        return {"loss": mean, "chance_loss": every.new_tensor(even)}

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


class OfPairs(torch.autograd.Function):
    """A loss, a mean over all pairs, whose gradients of two tables of vectors are known already: those of the sum over
    pairs, times the `shares` of each row, `(2, rows)`."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, words: Tensor, contexts: Tensor, shares: Tensor, *tables: Tensor) -> Tensor:
        ctx.known = words, contexts, shares
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, shares = ctx.known
        del ctx.known  # scaled in place, since tables are large: once
        found = (one.mul_((share * above[0])[:, None]) for one, share in zip(gradients, shares, strict=True))
        return None, None, None, None, *found


Found = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@full_precision
def skip_gram_loss(inner: Tensor, outer: Tensor, against: Tensor, near: Tensor, negatives: int) -> Found:
    """Sum over words and their neighbours of −ln σ(inner · outer) and `negatives` times the mean over the words by
    chance of −ln σ(−inner · against), a scalar; in how many terms of it each word has a part, `(n, length)`; and its
    gradients of the first three.

    `inner`, `outer` are vectors of words as such and as neighbours, `(n, length, dim)`; `against`, of words by chance
    as neighbours, `(n, drawn, dim)`; `near` from `neighbours`. Gradients are written out, passages of a few at a time:
    autograd goes through tensors of the whole batch twice as often, and takes 1.7 times as long."""
    counted = near.sum(2)
    right, wrong = (inner @ outer.mT).sigmoid_(), (inner @ against.mT).neg_().sigmoid_()
    share = negatives / against.shape[1] * counted[..., None]
    total = (_log(right) * near).sum() + (_log(wrong) * share).sum()
    pull, push = (1 - right).mul_(near), (1 - wrong).mul_(share)
    return -total, counted, (push @ against).sub_(pull @ outer), -pull.mT @ inner, push.mT @ inner


@full_precision
def cbow_loss(inner: Tensor, outer: Tensor, against: Tensor, near: Tensor, negatives: int) -> Found:
    """The same with the mean of a word's neighbours in place of each, over words that have some."""
    counted = near.sum(2)
    some, per = (counted > 0).to(inner.dtype), counted.clamp_min(1)[..., None]
    around = (near @ inner).div_(per)
    right, wrong = (around * outer).sum(2).sigmoid_(), (around @ against.mT).neg_().sigmoid_()
    share = negatives / against.shape[1] * some[..., None]
    total = (_log(right) * some).sum() + (_log(wrong) * share).sum()
    pull, push = (1 - right).mul_(some)[..., None], (1 - wrong).mul_(share)
    moved = (push @ against).addcmul_(outer, pull, value=-1).div_(per)
    return -total, some, near.mT @ moved, around * -pull, push.mT @ around


def _log(likely: Tensor) -> Tensor:
    return likely.clamp_min(torch.finfo(likely.dtype).tiny).log_()
