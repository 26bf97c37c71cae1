"""A decoder of captions: what an encoder sees of an image, place by place, to words, one after the other."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.tokens import BETWEEN, FIRST, PAD, UNKNOWN


class Captioner(nn.Module):
    """Two small transformers, one that reads a caption forwards and one backwards, each of which tells the next token
    from those before it and from the image's map (arXiv:2006.06666). Tokens have the same vectors in both, and where
    they are told."""

    def __init__(self, map_dim: int, vocabulary: int, length: int, dim: int, depth: int, heads: int) -> None:
        """`map_dim`: channels of the map. Raises `ValueError` where the heads don't divide the width."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads")
        self.length = length
        self.seen, self.seen_norm = nn.Linear(map_dim, dim), nn.LayerNorm(dim)
        self.words = nn.Embedding(vocabulary, dim, padding_idx=PAD)
        self.places = nn.Parameter(torch.empty(length, dim))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.forwards, self.backwards = (_decoder(dim, depth, heads) for _ in range(2))
        for weight in (self.words.weight, self.places):
            nn.init.normal_(weight, std=0.02)
        with torch.no_grad():
            self.words.weight[PAD] = 0

    def places_of(self, last: Tensor) -> Tensor:
        """What is attended to of a map `(n, map_dim, rows, columns)`: `(n, rows · columns, dim)`."""
        return self.seen_norm(self.seen(last.flatten(2).mT))

    def forward(self, seen: Tensor, tokens: Tensor, backwards: bool = False, wanted: Tensor | None = None) -> Tensor:
        """Logits of the token after each of `tokens`, int64 `(n, k)`: `(n, k, vocabulary)`; of those that are `wanted`
        alone, bool `(n, k)`: `(m, vocabulary)`, and most are padding."""
        decoder: Any = self.backwards if backwards else self.forwards
        after = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        given = self.words(tokens) + self.places[: tokens.shape[1]]
        found = decoder(given, seen, tgt_mask=after, tgt_is_causal=True)
        found = found if wanted is None else found[wanted]
        return found @ self.words.weight.T + self.bias

    @torch.no_grad()
    def captions(self, seen: Tensor, beams: int = 5) -> Tensor:
        """The likeliest captions by a beam search, forwards: tokens, int64 `(n, length)`, padded. Sums of logarithms
        are divided by the number of tokens, or short captions would always win."""
        n, vocabulary = len(seen), len(self.bias)
        found = torch.full((n, beams, 1), FIRST, device=seen.device)
        sums = torch.full((n, beams), -torch.inf, device=seen.device)
        sums[:, 0] = 0  # all beams begin alike: the first step opens them
        over = torch.zeros((n, beams), dtype=torch.bool, device=seen.device)
        every = seen.repeat_interleave(beams, dim=0)
        lengths = torch.ones((n, beams), device=seen.device)
        for _ in range(self.length - 1):
            told = found.flatten(0, 1)
            last = torch.zeros_like(told, dtype=torch.bool)
            last[:, -1] = True
            logits = self(every, told, wanted=last).float()
            logits[:, [PAD, UNKNOWN, FIRST]] = -torch.inf
            steps = F.log_softmax(logits, dim=1).view(n, beams, vocabulary)
            rest = torch.full_like(steps, -torch.inf)
            rest[:, :, PAD] = 0  # a caption that is over stays as it is
            steps = torch.where(over[..., None], rest, steps)
            longer = lengths + (~over).float()
            scores = ((sums[..., None] + steps) / longer[..., None]).flatten(1)
            chosen = scores.topk(beams, dim=1).indices
            beam, token = chosen // vocabulary, chosen % vocabulary
            sums = (sums[..., None] + steps).flatten(1).gather(1, chosen)
            found = torch.cat([found.gather(1, beam[..., None].expand(-1, -1, found.shape[2])), token[..., None]], 2)
            over = over.gather(1, beam) | (token == BETWEEN)
            lengths = longer.gather(1, beam)
            if over.all():
                break
        best = (sums / lengths).argmax(dim=1)
        tokens = found[torch.arange(n, device=seen.device), best]
        return F.pad(tokens, (0, self.length - tokens.shape[1]), value=PAD)


def turned(tokens: Tensor) -> Tensor:
    """Captions `(n, length)`, padded at their ends, each read from its last token to its first, padded likewise."""
    lengths = (tokens != PAD).sum(dim=1, keepdim=True)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    back = (lengths - 1 - places).clamp_min(0)
    return tokens.gather(1, back).masked_fill(places >= lengths, PAD)


def _decoder(dim: int, depth: int, heads: int) -> nn.Module:
    layer = nn.TransformerDecoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerDecoder(layer, depth, nn.LayerNorm(dim))
