"""VirTex: tell an image's caption, word by word, forwards and backwards, from the encoder's map (arXiv:2006.06666)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.formats import TextFormat
from sslflow.data.tokens import PAD
from sslflow.networks.captioner import Captioner, turned
from sslflow.networks.encoder import Encoder
from sslflow.networks.matcher import trimmed
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.captions import CaptionedView


class VirTex(Method):
    """Settings of the two transformers that tell captions: `dim`, their width, `depth` in layers, `heads`. Each image
    counts the same, however long its caption is."""

    Views = CaptionedView
    additive = True

    def __init__(
        self, encoder: Encoder, tokens: TextFormat, *, dim: Count = 512, depth: Count = 1, heads: Count = 8
    ) -> None:
        super().__init__()
        self.encoder, self.vocabulary = encoder, tokens.vocabulary
        self.captioner = Captioner(encoder.map_dim, tokens.vocabulary, tokens.length, dim, depth, heads)

    def training_step(self, batch: Batch) -> Losses:
        view, tokens = batch.views
        seen, tokens = self.captioner.places_of(self.encoder.map(view)), trimmed(tokens)
        forwards, right = self._told(seen, tokens, backwards=False)
        backwards, _ = self._told(seen, turned(tokens), backwards=True)
        return {"loss": (forwards + backwards) / 2, "accuracy": right, "forwards": forwards, "backwards": backwards}

    def _told(self, seen: Tensor, tokens: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        logits = self.captioner(seen, tokens[:, :-1], backwards, wanted=tokens[:, 1:] != PAD)
        return next_tokens(logits, tokens)

    def choices(self, images: int) -> Choices:
        return Choices(self.vocabulary, "tokens of the vocabulary")

    @torch.no_grad()
    def told(self, images: Tensor, beams: int = 5) -> Tensor:
        """The captions of normalised images, as tokens, int64 `(n, length)`."""
        return self.captioner.captions(self.captioner.places_of(self.encoder.map(images)), beams)


def next_tokens(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy and accuracy of telling each of `tokens` `(n, k + 1)` but the first ones and padding, `m` of them
    row by row, by `logits` `(m, vocabulary)`: of each caption the mean over its tokens, and of these the mean. Scalars;
    at random the first is ln(vocabulary)."""
    there = tokens[:, 1:] != PAD
    answers = tokens[:, 1:][there]
    shares = (1 / (len(tokens) * there.sum(dim=1, keepdim=True).clamp_min(1))).expand_as(there)[there]
    losses = F.cross_entropy(logits.float(), answers, reduction="none")
    right = (logits.argmax(dim=1) == answers).float()
    return (losses * shares).sum(), (right * shares).sum()
