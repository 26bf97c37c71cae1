"""MAE on volumes: hide most patches, encode the rest, and draw what was hidden (arXiv:2111.06377; of medical volumes:
arXiv:2205.14204)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.networks.volumes import VolumeEncoder
from sslflow.settings.params import Count
from sslflow.training.masked import MaskedAutoencoder
from sslflow.views.volumes import VolumeView


class MaskedVolumes(VolumeView):
    """The volume, and uniform noise `(n, s, s, s)` that says which patches are hidden."""

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (view,) = super().forward(fields)
        return view, torch.rand_like(view[:, 0])

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The volume alone."""
        return super().shown(views[:1])


class MAE3D(MaskedAutoencoder):
    """Settings: `mask`, the share of patches that are hidden; `decoder_width`, a multiple of 32, and `decoder_depth`;
    `standardised`, whether patches are drawn less their own mean and by their own deviation.

    Raises `ValueError` for an encoder that is no ViT, or blocks that are not made of whole patches.
    """

    Views = MaskedVolumes

    def __init__(
        self,
        encoder: VolumeEncoder,
        *,
        mask: Annotated[float, Gt(0), Lt(1)] = 0.75,
        decoder_width: Count = 96,
        decoder_depth: Count = 2,
        standardised: bool = True,
    ) -> None:
        if not encoder.is_vit:
            raise ValueError(
                f"mae_3d needs a ViT, whose patches it can leave out, and encoder.name is {encoder.settings['name']}: "
                "set encoder.name to vit"
            )
        side, patch = encoder.side, encoder.settings["patch_size"]
        if side % patch or not 1 < patch < side:
            fitting = ", ".join(str(size) for size in range(2, side) if side % size == 0)
            raise ValueError(
                f"mae_3d needs blocks of whole patches, and {side} voxels are not so many of encoder.patch_size "
                f"{patch}: " + (f"set it to one of {fitting}" if fitting else "set data.side to 32")
            )
        super().__init__(encoder, side, 3, mask, decoder_width, decoder_depth, standardised)
