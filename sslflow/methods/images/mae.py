"""MAE: hide most patches, encode the rest, and draw what was hidden (arXiv:2111.06377)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.networks.encoder import Encoder
from sslflow.networks.positions import positions
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Losses, Method
from sslflow.training.patches import hidden_error, standardise
from sslflow.views.images import CropView


class MaskedViews(CropView):
    """The image, and uniform noise `(n, s, s)` that says which patches are hidden. Views know no patch size: there is
    a number for each pixel, and the method takes as many rows and columns, from the upper left, as it has patches."""

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (view,) = super().forward(fields)
        return view, torch.rand_like(view[:, 0])

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The image alone."""
        return super().shown(views[:1])


class MAE(Method):
    """Settings: `mask`, the share of patches that are hidden; `decoder_width`, a multiple of 32, and `decoder_depth`.

    The encoder sees visible patches only, which makes a step cheap; mask tokens stand for the others in the decoder, a
    small transformer that is thrown away. Raises `ValueError` for an encoder that is no ViT, or images that are not
    made of whole patches.
    """

    Views = MaskedViews
    additive = True

    positions: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask: Annotated[float, Gt(0), Lt(1)] = 0.75,
        decoder_width: Count = 512,
        decoder_depth: Count = 8,
    ) -> None:
        super().__init__()
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
        if decoder_width % 32:
            raise ValueError(
                f"methods.mae.decoder_width is {decoder_width}: set it to a multiple of 32, a head's width"
            )
        self.encoder, self.patch, self.across = encoder, patch, side // patch
        patches = self.across**2
        self.visible = min(max(1, round((1 - mask) * patches)), patches - 1)
        self.embed = nn.Linear(encoder.map_dim, decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(decoder_width))
        self.register_buffer("positions", positions(self.across, decoder_width), persistent=False)
        self.decoder = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    decoder_width, decoder_width // 32, 4 * decoder_width,
                    dropout=0.0, activation="gelu", batch_first=True, norm_first=True,
                )
                for _ in range(decoder_depth)
            ),
            nn.LayerNorm(decoder_width),
            nn.Linear(decoder_width, encoder.channels * patch**2),
        )  # fmt: skip

    def training_step(self, batch: Batch) -> Losses:
        view, noise = batch.views
        order = self.order_of(noise)
        target, _, _ = standardise(patchify(view.float(), self.patch))
        return {"loss": hidden_error(self.draw(view, order), target, order[:, self.visible :])}

    def order_of(self, noise: Tensor) -> Tensor:
        """Random orders of the patches, int64 `(n, patches)`: the first `visible` of each are seen."""
        return noise[:, : self.across, : self.across].flatten(1).argsort(dim=1)

    def draw(self, view: Tensor, order: Tensor) -> Tensor:
        """All patches, standardised, as told from those that are seen: `(n, patches, pixels)`."""
        tokens = self.embed(self.encoder.tokens(view, order[:, : self.visible]))
        hidden = self.mask_token.to(tokens.dtype).expand(len(view), order.shape[1] - self.visible, -1)
        shuffled = torch.cat([tokens[:, 1:], hidden], dim=1)
        place = order.argsort(dim=1)[..., None].expand_as(shuffled)
        in_place = shuffled.gather(1, place) + self.positions
        return self.decoder(torch.cat([tokens[:, :1], in_place], dim=1))[:, 1:]

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Drawn patches come standardised; their own mean and deviation, which no one told the encoder, colour them."""
        view, noise = batch.views
        order = self.order_of(noise)
        seen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, : self.visible], True)[..., None]
        patches = patchify(view.float(), self.patch)
        _, mean, deviation = standardise(patches)
        drawn = self.draw(view, order).float() * deviation + mean
        columns = {"seen": patches * seen, "filled in": torch.where(seen, patches, drawn), "whole": patches}
        return {title: unpatchify(content, self.patch, self.across) for title, content in columns.items()}


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images `(n, c, s, s)` cut into patches, row by row: `(n, patches, c * patch * patch)`."""
    cut = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: int, across: int) -> Tensor:
    """The images `(n, c, s, s)` that `patchify` cut, `across` patches a side."""
    laid = patches.unflatten(2, (-1, patch, patch)).unflatten(1, (across, across))
    return laid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
