"""Supervised: both encoders learn the clips' labels; the control that shows what labels are worth."""

from __future__ import annotations

from torch import Tensor

from sslflow.audiovisual.method import ClipMethod
from sslflow.audiovisual.views import ClipWindowViews
from sslflow.data.fields import Fields
from sslflow.networks.encoder import Encoder
from sslflow.training.supervised import LearnsLabels


class SupervisedViews(ClipWindowViews):
    """Frames, and the sounds of the same windows."""

    def of_windows(self, fields: Fields, starts: Tensor) -> tuple[Tensor, ...]:
        return self.pictures(fields, starts), self.sounds(fields, starts)


class Supervised(LearnsLabels, ClipMethod):
    """The one method for clips that sees labels; frame and sound are classified on their own. Raises `ValueError` where
    fewer than two classes have labels."""

    Views = SupervisedViews
    advice = "leave it out of run.clip_methods, or put videos into folders by their labels (clips.source: folders)"

    def __init__(self, encoder: Encoder, sound_encoder: Encoder, labels: Tensor) -> None:
        super().__init__()
        self.encoder, self.sound_encoder = encoder, sound_encoder
        self.learn(labels)
