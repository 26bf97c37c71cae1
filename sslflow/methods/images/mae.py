"""MAE: hide most patches, encode the rest, and draw what was hidden (arXiv:2111.06377)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.networks.encoder import Encoder
from sslflow.settings.params import Count
from sslflow.training.masked import MaskedAutoencoder
from sslflow.views.images import CropView


class MaskedViews(CropView):
    """The image, and uniform noise `(n, s, s)` that says which patches are hidden."""

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (view,) = super().forward(fields)
        return view, torch.rand_like(view[:, 0])

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The image alone."""
        return super().shown(views[:1])


class MAE(MaskedAutoencoder):
    """Settings: `mask`, the share of patches that are hidden; `decoder_width`, a multiple of 32, and `decoder_depth`.
    Patches are drawn standardised.

    Raises `ValueError` for an encoder that is no ViT, or images that are not made of whole patches.
    """

    Views = MaskedViews

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask: Annotated[float, Gt(0), Lt(1)] = 0.75,
        decoder_width: Count = 512,
        decoder_depth: Count = 8,
    ) -> None:
        if not encoder.is_vit:
            raise ValueError(
                f"mae needs a ViT, whose patches it can leave out, and encoder.name is {encoder.settings['name']}: set "
                "encoder.name to vit_tiny, and encoder.patch_size to 4 for small images"
            )
        side, patch = encoder.image_size, encoder.settings["patch_size"]
        if side % patch or not 1 < patch < side:
            fitting = ", ".join(str(size) for size in range(2, side) if side % size == 0)
            raise ValueError(
                f"mae needs images of whole patches, and {side} pixels are not so many of encoder.patch_size {patch}: "
                + (f"set it to one of {fitting}" if fitting else "set data.image_size to 32")
            )
        super().__init__(encoder, side, 2, mask, decoder_width, decoder_depth)
