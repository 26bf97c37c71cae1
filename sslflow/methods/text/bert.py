"""BERT: tell hidden words in two passages, and whether the second follows the first (arXiv:1810.04805)."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.data.formats import TextFormat
from sslflow.networks.language import (
    NOT_ASKED,
    Follows,
    HiddenWords,
    follow_cross_entropy,
    share_right,
    word_cross_entropy,
)
from sslflow.networks.text import TextEncoder
from sslflow.settings.params import NonNegative
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.text import HiddenWordPairViews


class BERT(Method):
    """Settings: `following`, the weight of whether the second passage follows beside that of hidden words."""

    Views = HiddenWordPairViews

    encoder: TextEncoder  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, encoder: TextEncoder, tokens: TextFormat, *, following: NonNegative = 1.0) -> None:
        super().__init__()
        self.encoder, self.words = encoder, HiddenWords(encoder, tokens.counts)
        self.follows, self.following = Follows(encoder.dim), following

    def training_step(self, batch: Batch) -> Losses:
        seen, answers, follows = batch.views
        asked, known = answers >= 0, follows != NOT_ASKED
        found = self.encoder.tokens(seen)
        logits, right = self.words.head(found[asked], self.encoder.words.weight), answers[asked]
        told = self.follows(found, seen)
        of_words, of_pairs = word_cross_entropy(logits, right), follow_cross_entropy(told, follows)
        return {
            "loss": of_words + self.following * of_pairs,
            "words": of_words,
            "following": of_pairs,
            "accuracy": share_right(logits.argmax(1) == right),
            "following_accuracy": share_right((told > 0)[known] == (follows > 0)[known]),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """What is seen, what is filled in, and the whole."""
        seen, answers, _ = batch.views
        asked = answers >= 0
        told = seen.clone()
        told[asked] = self.words(seen, asked).argmax(1)
        return {"seen": seen, "filled in": told, "whole": torch.where(asked, answers, seen)}
