"""An encoder of text: tokens to features, by a small transformer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sslflow.data.tokens import PAD
from sslflow.settings.params import Below, Count


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
        depth: Count = 4,
        heads: Count = 4,
        dropout: Below = 0.0,
        pool: Literal["mean", "first"] = "mean",
    ) -> None:
        """`depth` layers with `heads` each, which normalise before they add (arXiv:2002.04745); features are the mean
        over the tokens that are not padding, or the first one. Raises `ValueError` where the heads don't divide the
        width."""
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
        }
        self.vocabulary, self.length, self.dim, self.facts = vocabulary, length, dim, {}
        self.words = nn.Embedding(vocabulary, dim, padding_idx=PAD)
        self.places = nn.Parameter(torch.empty(length, dim))
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True)
        self.network: Any = nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        for weight in (self.words.weight, self.places):
            nn.init.normal_(weight, std=0.02)
        with torch.no_grad():
            self.words.weight[PAD] = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Features `(n, dim)` of tokens, int64 `(n, length)` or shorter, 0 where there is none any more."""
        found = self.tokens(tokens)
        if self.settings["pool"] == "first":
            return found[:, 0]
        there = (tokens != PAD).unsqueeze(-1).to(found.dtype)
        return (found * there).sum(1) / there.sum(1).clamp_min(1)

    def tokens(self, tokens: Tensor) -> Tensor:
        """What it makes of each token, `(n, length, dim)`."""
        padding = tokens == PAD
        padding[:, 0] = False  # of an empty text, too, something is attended to
        found = self.words(tokens) + self.places[: tokens.shape[1]]
        return self.network(found, src_key_padding_mask=padding)
