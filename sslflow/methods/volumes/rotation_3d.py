"""Rotation in three dimensions: tell how a volume was turned (arXiv:1803.07728; of volumes: arXiv:2006.03829)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.data.formats import VolumeFormat
from sslflow.networks.volumes import VolumeEncoder
from sslflow.settings.params import Count, Fraction
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.orientations import ORIENTATIONS, turned_back, turned_by
from sslflow.views.volumes import VolumeView


class TurnedViews(VolumeView):
    """The volume, and numbers of orientations, all of them in an order by chance, int64 `(n, 24)`, from which the
    method takes the first ones that are among its own."""

    def __init__(self, format: VolumeFormat, *, shift: Fraction = 0.1, flip: Fraction = 0.5) -> None:
        super().__init__(format, shift=shift, flip=flip)

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (view,) = super().forward(fields)
        return view, torch.rand(len(view), len(ORIENTATIONS), device=view.device).argsort(dim=1)

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The volume alone."""
        return super().shown(views[:1])


class Rotation3D(Method):
    """Settings: `orientations`, all 24 of a cube, or 10: as it is, and by one to three quarter turns about one axis;
    `turns`, in how many of them each volume passes through the encoder in a step, no two of them the same. All at once,
    as with images, would be 24 passes."""

    encoder: VolumeEncoder  # pyright: ignore[reportIncompatibleVariableOverride]

    Views = TurnedViews
    additive = True

    def __init__(self, encoder: VolumeEncoder, *, orientations: Literal[10, 24] = 24, turns: Count = 4) -> None:
        """Raises `ValueError` for more turns than orientations."""
        super().__init__()
        if turns > orientations:
            raise ValueError(
                f"methods.rotation_3d.turns is {turns}, and there are {orientations} orientations: set it to so many "
                "at most"
            )
        self.encoder, self.classifier = encoder, nn.Linear(encoder.dim, orientations)
        self.orientations, self.turns = orientations, turns

    def training_step(self, batch: Batch) -> Losses:
        view, numbers = batch.views
        answers = self._own(numbers)[:, : self.turns]
        turned = turned_by(view.repeat_interleave(self.turns, dim=0), answers.flatten())
        logits = self.classifier(self.encoder(turned)).float()
        accuracy = (logits.argmax(dim=1) == answers.flatten()).float().mean()
        return {"loss": F.cross_entropy(logits, answers.flatten()), "accuracy": accuracy}

    def _own(self, numbers: Tensor) -> Tensor:
        """Those of the numbers `(n, 24)` that are among its orientations, in their order, `(n, orientations)`."""
        return numbers[numbers < self.orientations].view(len(numbers), -1)

    def choices(self, images: int) -> Choices:
        return Choices(self.orientations, "orientations")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Volumes turned by chance, and turned back by what the classifier says: upright where it is right."""
        view, numbers = batch.views
        turned = turned_by(view, self._own(numbers)[:, 0])
        told = self.classifier(self.encoder(turned)).argmax(dim=1)
        return {"shown": turned, "righted": turned_back(turned, told), "upright": view}
