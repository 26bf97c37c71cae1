"""I-JEPA: predict what a slow copy sees in hidden blocks of an image, from the rest of it (arXiv:2301.08243)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.networks.answers import require_vit
from sslflow.networks.encoder import Encoder
from sslflow.networks.positions import positions
from sslflow.networks.teacher import Teacher
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Count, Fraction
from sslflow.training.method import Batch, Losses, Method
from sslflow.training.schedules import linear
from sslflow.views.blocks import draw_blocks, inside
from sslflow.views.images import CropView
from sslflow.views.strengths import Share


@dataclass(frozen=True)
class Targets:
    """What is asked for: so many `blocks`, each of a share of the `area` between two, height over width between two of
    `aspect`."""

    blocks: Count = 4
    area: tuple[Share, Share] = (0.15, 0.2)
    aspect: tuple[Share, Annotated[float, Ge(1)]] = (0.75, 1.5)


class BlockView(CropView):
    """The image; uniform noise `(n, s, s)`, by which visible patches are chosen where there are too many, a number for
    each pixel, as in MAE's views; and blocks `(n, blocks + 1, 4)`: those that are asked for, and last the one that is
    seen, less those."""

    def __init__(
        self,
        format: ImageFormat,
        *,
        shift: Fraction = 0.1,
        flip: Fraction = 0.5,
        targets: Targets = Targets(),
        context: tuple[Share, Share] = (0.85, 1.0),
    ) -> None:
        """`context`: least and largest share of the area of the block that is seen; the rest as for `CropView`."""
        super().__init__(format, shift=shift, flip=flip)
        self.targets, self.context = targets, context

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (view,) = super().forward(fields)
        images, asked = len(view), self.targets
        area = torch.empty(images, asked.blocks, device=view.device).uniform_(*asked.area)
        seen = torch.empty(images, 1, device=view.device).uniform_(*self.context)
        blocks = (
            draw_blocks(images, asked.blocks, area, asked.aspect, view.device),
            draw_blocks(images, 1, seen, (1.0, 1.0), view.device),
        )
        return view, torch.rand_like(view[:, 0]), torch.cat(blocks, dim=1)

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The image alone."""
        return super().shown(views[:1])


class IJEPA(Method):
    """Settings: `predictor_width`, a multiple of 32, and `predictor_depth`, of the small transformer that tells the
    hidden patches from those that are seen; `momentum`, what the teacher keeps of itself in the first step: it rises to
    1 on a straight line. Raises `ValueError` for an encoder that is no ViT."""

    Views = BlockView
    moving_targets = True

    positions: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor_width: Count = 384,
        predictor_depth: Count = 6,
        momentum: Fraction = 0.996,
    ) -> None:
        super().__init__()
        require_vit(encoder, "ijepa")
        if predictor_width % 32:
            raise ValueError(
                f"methods.ijepa.predictor_width is {predictor_width}: set it to a multiple of 32, a head's width"
            )
        self.encoder, self.momentum = encoder, momentum
        self.embed = nn.Linear(encoder.map_dim, predictor_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(predictor_width))
        self.register_buffer("positions", positions(encoder.across, predictor_width), persistent=False)
        self.predictor = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    predictor_width, predictor_width // 32, 4 * predictor_width,
                    dropout=0.0, activation="gelu", batch_first=True, norm_first=True,
                )
                for _ in range(predictor_depth)
            ),
            nn.LayerNorm(predictor_width),
            nn.Linear(predictor_width, encoder.map_dim),
        )  # fmt: skip
        self.teacher = Teacher(encoder)

    def training_step(self, batch: Batch) -> Losses:
        view, noise, blocks = batch.views
        asked, keep = self.places(noise, blocks)
        with torch.no_grad():
            taught = F.layer_norm(
                self.patches(cast(Encoder, self.teacher.network), view).float(), (self.encoder.map_dim,)
            )
        return {"loss": block_error(self.predict(view, keep), taught, asked)}

    def places(self, noise: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Which patches are asked for, bool `(n, blocks, patches)`, and which are seen, int64 `(n, k)`: of each image
        as many as of that which shows the fewest, in all processes."""
        places, across = inside(blocks, self.encoder.across), self.encoder.across
        asked, seen = places[:, :-1], places[:, -1] & ~places[:, :-1].any(dim=1)
        count = max(1, int(gather(seen.sum(dim=1)).min()))
        order = (noise[:, :across, :across].flatten(1) + 2.0 * ~seen).argsort(dim=1)
        return asked, order[:, :count]

    def predict(self, view: Tensor, keep: Tensor) -> Tensor:
        """What the patches that are kept tell of all, `(n, patches, map_dim)`."""
        tokens = self.embed(self.patches(self.encoder, view, keep))
        everywhere = self.mask_token.to(tokens.dtype).expand(len(view), len(self.positions), -1)
        laid = everywhere.scatter(1, keep[..., None].expand_as(tokens), tokens)
        return self.predictor(laid + self.positions)

    def patches(self, encoder: Encoder, view: Tensor, keep: Tensor | None = None) -> Tensor:
        """An encoder's tokens of patches, `(n, patches or kept, map_dim)`."""
        return encoder.tokens(view, keep)[:, encoder.network.num_prefix_tokens :]

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.encoder, linear(self.momentum, 1.0, progress))

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """What is seen, and what is asked for."""
        view, noise, blocks = batch.views
        asked, keep = self.places(noise, blocks)
        seen = torch.zeros_like(asked[:, 0]).scatter_(1, keep, True)
        masks = {"seen": seen, "asked for": asked.any(dim=1)}
        return {**{title: view * self._pixels(mask, view) for title, mask in masks.items()}, "whole": view}

    def _pixels(self, mask: Tensor, view: Tensor) -> Tensor:
        cells = mask.view(len(mask), 1, self.encoder.across, self.encoder.across)
        return F.interpolate(cells.to(view.dtype), size=view.shape[-2:])


def block_error(predicted: Tensor, taught: Tensor, asked: Tensor) -> Tensor:
    """Mean squared difference of what is predicted and taught, both `(n, patches, dim)`, over the patches of each block
    that is asked for, bool `(n, blocks, patches)`, then over blocks and images: scalar."""
    error = (predicted.float() - taught).square().mean(dim=2)
    shares = asked / asked.sum(dim=2, keepdim=True).clamp(min=1)
    return (error[:, None] * shares).sum(dim=2).mean()
