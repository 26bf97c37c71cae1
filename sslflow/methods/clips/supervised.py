"""Supervised: both encoders learn the clips' labels; the control that shows what labels are worth."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.audiovisual.method import ClipMethod
from sslflow.audiovisual.views import ClipViews
from sslflow.data.raw import Raw
from sslflow.data.splits import NO_LABEL
from sslflow.networks.encoder import Encoder
from sslflow.runtime.distributed import gather
from sslflow.training.method import Batch, Choices, Losses


class SupervisedViews(ClipViews):
    """Frames, and the sounds of the same windows."""

    @torch.no_grad()
    def forward(self, raw: Raw) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        starts = self.starts(len(raw), raw.frames.device)
        return self.pictures(raw, starts), self.sounds(raw, starts)


class Supervised(ClipMethod):
    """The one method for clips that sees labels. They come in here, by the constructor: int64 `(clips,)`, −1 where
    there is none, for the clips that the batches' rows count. Frame and sound are classified on their own. Raises
    `ValueError` where fewer than two classes have labels."""

    Views = SupervisedViews
    hears = "sound"
    needs_labels: ClassVar[bool] = True

    labels: Tensor

    def __init__(self, encoder: Encoder, sound_encoder: Encoder, labels: Tensor) -> None:
        super().__init__()
        found = labels[labels != NO_LABEL].unique()
        if len(found) < 2:
            raise ValueError(
                f"supervised learns labels, and the clips to train on have {len(found)} classes; leave it out of "
                "correspond.methods, or put videos into folders by their labels (clips.source: folders)"
            )
        classes = int(found.max()) + 1
        self.encoder, self.sound_encoder = encoder, sound_encoder
        self.classifier = nn.Linear(encoder.dim, classes)
        self.sound_classifier = nn.Linear(sound_encoder.dim, classes)
        self.register_buffer("labels", labels, persistent=False)

    def training_step(self, batch: Batch) -> Losses:
        frames, sounds = batch.views
        # Gathered, since one process may have more clips with labels than another.
        labels = gather(self.labels[batch.rows])
        seen = gather(self.classifier(self.encoder(frames)).float())
        heard = gather(self.sound_classifier(self.sound_encoder(sounds)).float())
        losses = [F.cross_entropy(logits, labels, ignore_index=NO_LABEL) for logits in (seen, heard)]
        accuracies = [(logits.argmax(dim=1) == labels).float().mean() for logits in (seen, heard)]
        return {"loss": (losses[0] + losses[1]) / 2, "accuracy": (accuracies[0] + accuracies[1]) / 2}

    def choices(self, images: int) -> Choices:
        return Choices(self.classifier.out_features, "classes")
