"""word2vec: vectors of words, so that each tells its neighbours from words drawn by chance (arXiv:1310.4546)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.formats import TextFormat
from sslflow.networks.text import TextEncoder
from sslflow.runtime.distributed import all_reduce_sum, world_size
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.text import WindowViews


class Word2Vec(Method):
    """Settings: `architecture`: skip_gram, a word tells each of its neighbours; cbow, the mean of its neighbours tells
    a word. `dim`, width of the vectors; `negatives`, how many words by chance stand against each neighbour.

    Its encoder is its own, whatever the section `encoder` says: the mean of word vectors. Words drawn by chance are
    shared by all words of a passage and weighted accordingly (arXiv:1604.04661), which makes them matrix products.
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
        words, reach, drawn = batch.views
        near = neighbours(words, reach)
        inner, outer = self.encoder.words(words), self.contexts(words)
        against = self.contexts(drawn)
        loss = skip_gram_loss if self.architecture == "skip_gram" else cbow_loss
        total, count = loss(inner, outer, against, near, self.negatives)
        everywhere = all_reduce_sum(count.detach().clone()).clamp_min(1) / world_size()
        even = math.log(1 + self.negatives) - self.negatives * math.log(self.negatives / (1 + self.negatives))
        return {"loss": total / everywhere, "chance_loss": total.new_tensor(even)}

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


def skip_gram_loss(
    inner: Tensor, outer: Tensor, against: Tensor, near: Tensor, negatives: int
) -> tuple[Tensor, Tensor]:
    """Sum over words and their neighbours of −ln σ(inner · outer) and `negatives` times the mean over the words by
    chance of −ln σ(−inner · against), and the number of neighbours: scalars.

    `inner`, `outer` are vectors of words as such and as neighbours, `(n, length, dim)`; `against`, of words by chance
    as neighbours, `(n, drawn, dim)`; `near` from `neighbours`."""
    right = (F.softplus(-inner @ outer.mT) * near).sum()
    wrong = (F.softplus(inner @ against.mT).mean(2) * near.sum(2)).sum()
    return right + negatives * wrong, near.sum()


def cbow_loss(inner: Tensor, outer: Tensor, against: Tensor, near: Tensor, negatives: int) -> tuple[Tensor, Tensor]:
    """The same with the mean of a word's neighbours in place of each, over words that have some; and the number of
    words."""
    counted = near.sum(2)
    around = near @ inner / counted.clamp_min(1)[..., None]
    right = F.softplus(-(around * outer).sum(2))
    wrong = F.softplus(around @ against.mT).mean(2)
    some = (counted > 0).float()
    return ((right + negatives * wrong) * some).sum(), some.sum()
