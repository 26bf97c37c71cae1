"""MAE on volumes: hide most patches, encode the rest, and draw what was hidden (arXiv:2111.06377; of medical volumes:
arXiv:2205.14204)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.networks.positions import cube_positions
from sslflow.networks.volumes import VolumeEncoder
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Losses, Method
from sslflow.training.patches import hidden_error, standardise
from sslflow.views.volumes import VolumeView


class MaskedVolumes(VolumeView):
    """The volume, and uniform noise `(n, s, s, s)` that says which patches are hidden: views know no patch size, so the
    method takes as many numbers, from the first corner, as it has patches."""

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (view,) = super().forward(fields)
        return view, torch.rand_like(view[:, 0])

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The volume alone."""
        return super().shown(views[:1])


class MAE3D(Method):
    """Settings: `mask`, the share of patches that are hidden; `decoder_width`, a multiple of 32, and `decoder_depth`;
    `standardised`, whether patches are drawn less their own mean and by their own deviation.

    The encoder sees visible patches only, which makes a step cheap; mask tokens stand for the others in the decoder, a
    small transformer that is thrown away. Raises `ValueError` for an encoder that is no ViT, or blocks that are not
    made of whole patches.
    """

    encoder: VolumeEncoder  # pyright: ignore[reportIncompatibleVariableOverride]

    Views = MaskedVolumes
    additive = True

    positions: Tensor

    def __init__(
        self,
        encoder: VolumeEncoder,
        *,
        mask: Annotated[float, Gt(0), Lt(1)] = 0.75,
        decoder_width: Count = 96,
        decoder_depth: Count = 2,
        standardised: bool = True,
    ) -> None:
        super().__init__()
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
        if decoder_width % 32:
            raise ValueError(
                f"methods.mae_3d.decoder_width is {decoder_width}: set it to a multiple of 32, a head's width"
            )
        self.encoder, self.patch, self.across, self.standardised = encoder, patch, side // patch, standardised
        patches = self.across**3
        self.visible = min(max(1, round((1 - mask) * patches)), patches - 1)
        self.embed = nn.Linear(encoder.map_dim, decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(decoder_width))
        self.register_buffer("positions", cube_positions(self.across, decoder_width), persistent=False)
        self.decoder = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    decoder_width, decoder_width // 32, 4 * decoder_width,
                    dropout=0.0, activation="gelu", batch_first=True, norm_first=True,
                )
                for _ in range(decoder_depth)
            ),
            nn.LayerNorm(decoder_width),
            nn.Linear(decoder_width, encoder.channels * patch**3),
        )  # fmt: skip

    def training_step(self, batch: Batch) -> Losses:
        view, noise = batch.views
        order, target = self.order_of(noise), cubes(view.float(), self.patch)
        if self.standardised:
            target, _, _ = standardise(target)
        return {"loss": hidden_error(self.draw(view, order), target, order[:, self.visible :])}

    def order_of(self, noise: Tensor) -> Tensor:
        """Random orders of the patches, int64 `(n, patches)`: the first `visible` of each are seen."""
        across = self.across
        return noise[:, :across, :across, :across].flatten(1).argsort(dim=1)

    def draw(self, view: Tensor, order: Tensor) -> Tensor:
        """All patches as told from those that are seen: `(n, patches, voxels)`."""
        tokens = self.embed(self.encoder.tokens(view, order[:, : self.visible]))
        hidden = self.mask_token.to(tokens.dtype).expand(len(view), order.shape[1] - self.visible, -1)
        shuffled = torch.cat([tokens, hidden], dim=1)
        place = order.argsort(dim=1)[..., None].expand_as(shuffled)
        return self.decoder(shuffled.gather(1, place) + self.positions)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Where drawn patches come standardised, their own mean and deviation, which no one told the encoder, scale
        them."""
        view, noise = batch.views
        order = self.order_of(noise)
        seen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, : self.visible], True)[..., None]
        patches = cubes(view.float(), self.patch)
        _, mean, deviation = standardise(patches)
        drawn = self.draw(view, order).float()
        drawn = drawn * deviation + mean if self.standardised else drawn
        columns = {"seen": patches * seen, "filled in": torch.where(seen, patches, drawn), "whole": patches}
        return {title: joined(content, self.patch, self.across) for title, content in columns.items()}


def cubes(volumes: Tensor, patch: int) -> Tensor:
    """Volumes `(n, c, s, s, s)` cut into patches, in the order of a ViT's: `(n, patches, c * patch³)`."""
    cut = volumes.unflatten(4, (-1, patch)).unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def joined(patches: Tensor, patch: int, across: int) -> Tensor:
    """The volumes `(n, c, s, s, s)` that `cubes` cut, `across` patches a side."""
    laid = patches.unflatten(2, (-1, patch, patch, patch)).unflatten(1, (across, across, across))
    return laid.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6).flatten(4, 5).flatten(2, 3)
