"""Masked autoencoders, whatever their patches are of: most are hidden, and told from the rest (arXiv:2111.06377)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslflow.networks.positions import positions
from sslflow.training.method import Batch, Losses, Method
from sslflow.training.patches import hidden_error, patchify, standardise, unpatchify


class MaskedAutoencoder(Method):
    """The encoder, a ViT, sees visible patches only, which makes a step cheap; mask tokens stand for the others in the
    decoder, a small transformer that is thrown away.

    A batch has two views: what is cut into patches, `(n, c, s, …)`, and uniform noise `(n, s, …)` that says which are
    hidden. Views know no patch size: there is a number for each pixel or voxel, and as many along each axis are taken,
    from the first corner, as there are patches.
    """

    additive = True

    positions: Tensor

    def __init__(
        self, encoder: Any, side: int, axes: int, mask: float, width: int, depth: int, standardised: bool = True
    ) -> None:
        """`side`: pixels, or voxels, along each of so many axes; `mask`: the share of patches that are hidden; `width`
        and `depth` are the decoder's; `standardised`: whether patches are drawn less their own mean and by their own
        deviation. Raises `ValueError` for a width that is no multiple of a head's."""
        super().__init__()
        if width % 32:
            name = type(self).__module__.rpartition(".")[2]
            raise ValueError(f"methods.{name}.decoder_width is {width}: set it to a multiple of 32, a head's width")
        self.encoder, self.axes, self.standardised = encoder, axes, standardised
        self.patch: int = encoder.settings["patch_size"]
        self.across = side // self.patch
        patches = self.across**axes
        self.visible = min(max(1, round((1 - mask) * patches)), patches - 1)
        self.embed = nn.Linear(encoder.map_dim, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", positions(self.across, width, axes), persistent=False)
        self.decoder = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, width // 32, 4 * width,
                    dropout=0.0, activation="gelu", batch_first=True, norm_first=True,
                )
                for _ in range(depth)
            ),
            nn.LayerNorm(width),
            nn.Linear(width, encoder.channels * self.patch**axes),
        )  # fmt: skip

    def training_step(self, batch: Batch) -> Losses:
        view, noise = batch.views
        order, target = self.order_of(noise), patchify(view.float(), self.patch)
        if self.standardised:
            target, _, _ = standardise(target)
        return {"loss": hidden_error(self.draw(view, order), target, order[:, self.visible :])}

    def order_of(self, noise: Tensor) -> Tensor:
        """Random orders of the patches, int64 `(n, patches)`: the first `visible` of each are seen."""
        return noise[(slice(None), *(slice(self.across),) * self.axes)].flatten(1).argsort(dim=1)

    def draw(self, view: Tensor, order: Tensor) -> Tensor:
        """All patches as told from those that are seen: `(n, patches, values)`."""
        tokens = self.embed(self.encoder.tokens(view, order[:, : self.visible]))
        # A class token, where the encoder has one, stands first.
        first, seen = tokens.tensor_split([tokens.shape[1] - self.visible], dim=1)
        hidden = self.mask_token.to(tokens.dtype).expand(len(view), order.shape[1] - self.visible, -1)
        shuffled = torch.cat([seen, hidden], dim=1)
        place = order.argsort(dim=1)[..., None].expand_as(shuffled)
        in_place = shuffled.gather(1, place) + self.positions
        return self.decoder(torch.cat([first, in_place], dim=1))[:, first.shape[1] :]

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Where drawn patches come standardised, their own mean and deviation, which no one told the encoder, colour
        them."""
        view, noise = batch.views
        order = self.order_of(noise)
        seen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, : self.visible], True)[..., None]
        patches = patchify(view.float(), self.patch)
        _, mean, deviation = standardise(patches)
        drawn = self.draw(view, order).float()
        drawn = drawn * deviation + mean if self.standardised else drawn
        columns = {"seen": patches * seen, "filled in": torch.where(seen, patches, drawn), "whole": patches}
        return {title: unpatchify(content, self.patch, self.across, self.axes) for title, content in columns.items()}
