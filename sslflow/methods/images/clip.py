"""CLIP: find an image's caption and a caption's image among those of the batch (arXiv:2103.00020; with an image term
SLIP: arXiv:2112.12750)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.matcher import Matcher
from sslflow.networks.symmetric import nt_xent, symmetric_info_nce
from sslflow.networks.text import TextEncoder
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Count, NonNegative, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.captions import CaptionedViews

LARGEST_SCALE = 100.0


class CLIP(Method):
    """Settings: `dim` of the space that images and captions share; `temperature` at the start, by which cosine
    similarities are divided, learnt along and never below 1/100; `ssl_weight`, of the other way to learn from images,
    agreement of two views as in SimCLR, with its `projector` and `ssl_temperature`: 0 does without, and sees the first
    view alone; above, both views are compared with the caption."""

    Views = CaptionedViews

    def __init__(
        self,
        encoder: Encoder,
        text_encoder: TextEncoder,
        *,
        dim: Count = 512,
        temperature: Positive = 0.07,
        ssl_weight: NonNegative = 0.0,
        projector: Widths = (2048, 128),
        ssl_temperature: Positive = 0.1,
    ) -> None:
        super().__init__()
        self.encoder, self.text_encoder = encoder, text_encoder
        self.image_head = nn.Linear(encoder.dim, dim, bias=False)
        self.text_head = nn.Linear(text_encoder.dim, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.projector = mlp(encoder.dim, *projector) if ssl_weight else None
        self.ssl_weight, self.ssl_temperature = ssl_weight, ssl_temperature

    @property
    def matcher(self) -> Matcher:
        """Both encoders and their heads: what there is to use afterwards."""
        return Matcher(self.encoder, self.text_encoder, self.image_head, self.text_head)

    def training_step(self, batch: Batch) -> Losses:
        *views, tokens, numbers = batch.views
        if self.projector is None:
            views = views[:1]
        features = [self.encoder(view) for view in views]
        texts = gather(self.matcher.texts(tokens))
        same = interchangeable(gather(numbers), gather(batch.rows))
        scale = self.log_scale.exp()
        images = [gather(self.image_head(one)) for one in features]
        with_text = torch.stack([symmetric_info_nce(one, texts, scale, same) for one in images]).mean()
        losses = {"loss": with_text, "temperature": (1 / scale).detach(), "chance_loss": chance(same)}
        if self.projector is not None:
            za, zb = (gather(self.projector(one)) for one in features)
            of_images = nt_xent(za, zb, self.ssl_temperature)
            losses |= {
                "loss": with_text + self.ssl_weight * of_images, "captions": with_text, "images": of_images,
                "chance_loss": losses["chance_loss"] + self.ssl_weight * math.log(2 * len(za) - 1),
            }  # fmt: skip
        return losses

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def choices(self, images: int) -> Choices:
        return Choices(images, "captions of the batch")

    def projections(self, features: Tensor) -> Tensor:
        return self.image_head(features)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Images, and what is found by the caption of each: the same image, or one that it fits as well, where it is
        right."""
        view, _, tokens, _ = batch.views
        alike = self.matcher.texts(tokens) @ self.matcher.images(view).T
        return {"image": view, "found by its caption": view[alike.argmax(dim=1)]}


def interchangeable(numbers: Tensor, rows: Tensor) -> Tensor:
    """Whether image i and caption j of a batch, or image j and caption i, fit each other as well as their own partners
    do, bool `(n, n)`: `numbers` `(n, 1 + k)` are of the caption that was drawn, then of all that the image has, 0 for
    none; `rows` `(n,)` say which images are the same."""
    has = (numbers[:, None, :1] == numbers[None, :, 1:]).any(dim=2)
    return has | has.T | (rows[:, None] == rows[None])


def chance(same: Tensor) -> Tensor:
    """What `symmetric_info_nce` is where all similarities are equal: the mean logarithm of how many captions each image
    is compared with. Scalar."""
    others = (~same).sum(dim=1) + 1
    return others.float().log().mean()
