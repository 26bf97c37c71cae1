"""Next sentence prediction: does a passage follow another? (BERT's second task, arXiv:1810.04805)."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.networks.language import NOT_ASKED, Follows, follow_cross_entropy, share_right
from sslflow.networks.text import TextEncoder
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.text import PairViews


class NextSentence(Method):
    """The encoder sees two passages; a head says whether the second follows the first. It has no settings."""

    Views = PairViews

    encoder: TextEncoder  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder, self.follows = encoder, Follows(encoder.dim)

    def training_step(self, batch: Batch) -> Losses:
        pairs, follows = batch.views
        logits = self.told(pairs)
        asked = follows != NOT_ASKED
        return {
            "loss": follow_cross_entropy(logits, follows),
            "accuracy": share_right((logits > 0)[asked] == (follows > 0)[asked]),
        }

    def told(self, pairs: Tensor) -> Tensor:
        """Logits `(n,)` of whether the second passage of each pair follows the first."""
        return self.follows(self.encoder.tokens(pairs), pairs)

    def choices(self, images: int) -> Choices:
        return Choices(2, "answers, follows or not")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """The pairs, from the one that follows most surely to the one that does least."""
        pairs, _ = batch.views
        order = self.told(pairs).argsort(descending=True)
        return {"follows most surely": pairs[order], "follows least": pairs[order.flip(0)]}
