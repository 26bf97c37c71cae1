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
        forwards, right = next_tokens(self.captioner(seen, tokens[:, :-1]), tokens)
        back = turned(tokens)
        backwards, _ = next_tokens(self.captioner(seen, back[:, :-1], backwards=True), back)
        return {"loss": (forwards + backwards) / 2, "accuracy": right, "forwards": forwards, "backwards": backwards}

    def choices(self, images: int) -> Choices:
        return Choices(self.vocabulary, "tokens of the vocabulary")

    @torch.no_grad()
    def told(self, images: Tensor, beams: int = 5) -> Tensor:
        """The captions of normalised images, as tokens, int64 `(n, length)`."""
        return self.captioner.captions(self.captioner.places_of(self.encoder.map(images)), beams)


def next_tokens(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy and accuracy of telling each of `tokens` `(n, k + 1)` but the first one by `logits`
    `(n, k, vocabulary)`: of each caption the mean over its tokens, and of these the mean. Scalars; at random the first
    is ln(vocabulary)."""
    answers = tokens[:, 1:]
    there = (answers != PAD).float()
    counts = there.sum(dim=1).clamp_min(1)
    losses = F.cross_entropy(logits.float().mT, answers, reduction="none")
    right = (logits.argmax(dim=2) == answers).float()
    return ((losses * there).sum(dim=1) / counts).mean(), ((right * there).sum(dim=1) / counts).mean()
