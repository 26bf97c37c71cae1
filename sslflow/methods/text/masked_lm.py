"""Masked language model: tell hidden words from those around them (BERT's first task, arXiv:1810.04805)."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.data.formats import TextFormat
from sslflow.networks.language import HiddenWords, share_right, word_cross_entropy
from sslflow.networks.text import TextEncoder
from sslflow.training.method import Batch, Losses, Method, chance_level
from sslflow.views.text import HiddenWordViews


class MaskedLM(Method):
    """The encoder sees passages in which some words are hidden; a head says for each which it was. It has no settings:
    what is hidden, its views say."""

    Views = HiddenWordViews

    encoder: TextEncoder  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, encoder: TextEncoder, tokens: TextFormat) -> None:
        super().__init__()
        self.encoder, self.words = encoder, HiddenWords(encoder, tokens.counts)

    def training_step(self, batch: Batch) -> Losses:
        seen, answers = batch.views
        asked = answers >= 0
        logits, right = self.words(seen, asked), answers[asked]
        return {
            "loss": word_cross_entropy(logits, right),
            "accuracy": share_right(logits.argmax(1) == right),
            **chance_level(right, self.words.shares),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """What is seen, what is filled in, and the whole."""
        seen, answers = batch.views
        asked = answers >= 0
        told = seen.clone()
        told[asked] = self.words(seen, asked).argmax(1)
        return {"seen": seen, "filled in": told, "whole": torch.where(asked, answers, seen)}
