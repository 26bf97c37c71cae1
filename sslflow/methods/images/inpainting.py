"""Context encoder: draw the part of an image that was cut out, from the features of the rest (arXiv:1604.07379)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.networks.decoder import from_features
from sslflow.networks.encoder import Encoder
from sslflow.settings.params import Count, Fraction
from sslflow.training.method import Batch, Losses, Method
from sslflow.views.images import CropView
from sslflow.views.strengths import Share


class HoledViews(CropView):
    """The image with square holes, the whole image, and a mask `(n, 1, s, s)` that is 1 in the holes."""

    def __init__(
        self,
        format: ImageFormat,
        *,
        shift: Fraction = 0.1,
        flip: Fraction = 0.5,
        place: Literal["random", "centre"] = "random",
        holes: Count = 4,
        share: Share = 0.25,
    ) -> None:
        """`place`: one hole in the centre, or so many `holes` anywhere, that may overlap; `share`: of the area, that
        they cover together where they don't; `shift` and `flip` as for `CropView`."""
        super().__init__(format, shift=shift, flip=flip)
        self.place, self.holes = place, 1 if place == "centre" else holes
        self.side = min(max(1, round(format.size * (share / self.holes) ** 0.5)), format.size)

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (whole,) = super().forward(fields)
        room = whole.shape[-1] - self.side
        if self.place == "centre":
            corners = torch.full((len(whole), 1, 2), room // 2, device=whole.device)
        else:
            corners = torch.randint(room + 1, (len(whole), self.holes, 2), device=whole.device)
        mask = squares(corners, self.side, whole.shape[-1])
        # The fill is the data's mean, as in the paper: 0.
        return whole * (1 - mask), whole, mask

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """All but the mask."""
        return super().shown(views[:2])


class Inpainting(Method):
    """The paper's reconstruction term, without its adversarial one: that makes pictures sharp, and the authors learned
    their features without it. Setting: `decoder`, the width of its first layers."""

    Views = HoledViews
    additive = True

    def __init__(self, encoder: Encoder, *, decoder: Count = 64) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = from_features(encoder.dim, encoder.channels, encoder.image_size, width=decoder)

    def training_step(self, batch: Batch) -> Losses:
        holed, whole, mask = batch.views
        return {"loss": hole_error(self.decoder(self.encoder(holed)), whole, mask)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        holed, whole, mask = batch.views
        drawn = self.decoder(self.encoder(holed)).float()
        return {"with holes": holed, "filled in": holed + mask * drawn, "whole": whole}


def squares(corners: Tensor, side: int, size: int) -> Tensor:
    """A mask `(n, 1, size, size)` that is 1 in squares of `side` pixels, whose upper left corners are int64
    `(n, squares, 2)`."""
    offset = torch.arange(size, device=corners.device) - corners[..., None]
    rows, columns = ((offset >= 0) & (offset < side)).float().unbind(dim=2)
    return (rows[..., None] * columns[..., None, :]).amax(dim=1, keepdim=True)


def hole_error(drawn: Tensor, whole: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of `drawn` and `whole`, both `(n, c, s, s)`, where `mask`, `(n, 1, s, s)`, is 1: scalar.

    The mean is over each image's hole, then over images, so that every image counts the same, however its holes
    overlap.
    """
    error = (drawn.float() - whole.float()).square().mean(dim=1, keepdim=True) * mask
    return (error.sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))).mean()
