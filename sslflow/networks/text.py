"""An encoder of text: tokens to features, by a small transformer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.tokens import BETWEEN, PAD, SPECIAL
from sslflow.settings.params import Below, Count, Natural

NEAR = 5
"""Tokens that a layer's convolution sees."""


class Layer(nn.Module):
    """Of a transformer that normalises before it adds (arXiv:2002.04745). What is near is seen first by a convolution
    of each channel alone (arXiv:2109.08668), from which attention on little text takes long to learn it."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.near = nn.Parameter(torch.randn(NEAR, dim) / NEAR**0.5)
        self.layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True)

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """Of tokens `(n, length, dim)`, where `padding`, bool `(n, length)`, is false."""
        there = F.pad(tokens.masked_fill(padding[..., None], 0.0), (0, 0, NEAR // 2, NEAR // 2))
        # Shifted sums: PyTorch's own convolution takes half as long again for it on a CPU.
        near = sum(there[:, at : at + tokens.shape[1]] * self.near[at] for at in range(NEAR))
        return self.layer(tokens + near, src_key_padding_mask=padding)


class TextEncoder(nn.Module):
    """Tokens to features, without a head. `dim` is the width of the features and of the tokens; `facts`, plain values,
    what else is known of it, kept with it in its file."""

    kind: ClassVar[str] = "text"

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        dim: Count = 128,
        depth: Natural = 4,
        heads: Count = 4,
        dropout: Below = 0.0,
        pool: Literal["mean", "first"] = "mean",
        standardise: bool = False,
    ) -> None:
        """`depth` layers with `heads` each, which normalise before they add (arXiv:2002.04745); features are the mean
        over the tokens that are not padding, or the first one. With a `depth` of 0 a token is its word vector, wherever
        it stands, and features are the mean over the words. `standardise`: each feature has mean 0 and deviation 1 over
        the passages, by a BatchNorm without weights: what all passages have in common would make them all alike
        (arXiv:1702.01417). Raises `ValueError` where the heads don't divide the width."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"encoder.dim {dim} does not divide into {heads} heads")
        self.settings = {
            "vocabulary": vocabulary,
            "length": length,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "dropout": dropout,
            "pool": pool,
            "standardise": standardise,
        }
        self.vocabulary, self.length, self.dim, self.facts = vocabulary, length, dim, {}
        self.words = nn.Embedding(vocabulary, dim, padding_idx=PAD)
        nn.init.normal_(self.words.weight, std=0.02)
        with torch.no_grad():
            self.words.weight[PAD] = 0
        self.spread = nn.BatchNorm1d(dim, affine=False) if standardise else nn.Identity()
        self.network: Any = nn.Identity()
        if not depth:
            return
        self.places = nn.Parameter(0.02 * torch.randn(length, dim))
        self.parts = nn.Parameter(0.02 * torch.randn(2, dim))
        """What is added to tokens up to the first `[SEP]`, and to those after it: of a pair, its second passage."""
        self.network = nn.ModuleList(Layer(dim, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Features `(n, dim)` of tokens, int64 `(n, length)` or shorter, 0 where there is none any more."""
        return self.spread(self.pooled(self.tokens(tokens), tokens))

    def pooled(self, found: Tensor, tokens: Tensor) -> Tensor:
        """Features `(n, dim)`, not standardised, of what `tokens` made of each of the tokens."""
        if self.settings["pool"] == "first" and self.settings["depth"]:
            return found[:, 0]
        lowest = PAD + 1 if self.settings["depth"] else len(SPECIAL)
        there = (tokens >= lowest).unsqueeze(-1).to(found.dtype)
        return (found * there).sum(1) / there.sum(1).clamp_min(1)

    def tokens(self, tokens: Tensor) -> Tensor:
        """What it makes of each token, `(n, length, dim)`."""
        found = self.words(tokens)
        if not self.settings["depth"]:
            return found
        padding = tokens == PAD
        padding[:, 0] = False  # of an empty text, too, something is attended to
        ends = (tokens == BETWEEN).long()
        part = (ends.cumsum(1) - ends).clamp_max(1)
        found = found + self.places[: tokens.shape[1]] + self.parts[part]
        for layer in self.network:
            found = layer(found, padding)
        return self.norm(found)
