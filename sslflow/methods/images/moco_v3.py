"""MoCo v3: predict which view of the batch, seen by a slow teacher, is the same image (arXiv:2104.02057)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.teacher import Teacher
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather, rank
from sslflow.settings.params import Count, Fraction, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.training.schedules import cosine
from sslflow.views.images import TwoViews


class MoCoV3(Method):
    """Settings: `projector`, widths of the head's layers; `predictor`, width of the predictor's hidden layer; both
    heads end with a BatchNorm. `temperature`, by which cosine similarities are divided; `momentum`, what the teacher
    keeps of itself in the first step: it rises to 1 along half a cosine. `freeze_patches`, for ViTs: the layer that
    turns patches into tokens stays as it was drawn, which keeps training stable.

    Raises `ValueError` for `freeze_patches` with an encoder that has no such layer.
    """

    Views = TwoViews

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (4096, 4096, 256),
        predictor: Count = 4096,
        temperature: Positive = 0.2,
        momentum: Fraction = 0.99,
        freeze_patches: bool = False,
    ) -> None:
        super().__init__()
        if freeze_patches:
            if not hasattr(encoder.network, "patch_embed"):
                raise ValueError(
                    "moco_v3.freeze_patches needs a ViT: set encoder.name to vit_tiny, vit_small or vit_base, or "
                    f"freeze_patches to false; encoder.name is {encoder.settings['name']}"
                )
            encoder.network.patch_embed.requires_grad_(False)
        widths = (encoder.dim, *projector)
        self.encoder, self.projector = encoder, mlp(*widths, last_norm=True)
        self.predictor = mlp(widths[-1], predictor, widths[-1], last_norm=True)
        self.teacher = Teacher(nn.Sequential(encoder, self.projector))
        self.temperature, self.momentum = temperature, momentum

    def training_step(self, batch: Batch) -> Losses:
        pa, pb = (self.predictor(self.projector(self.encoder(view))) for view in batch.views)
        ta, tb = (gather(self.teacher(view)) for view in batch.views)
        first = rank() * len(pa)
        # The authors scale each direction by twice the temperature; to LARS and AdamW that is the same loss.
        return {"loss": (info_nce(pa, tb, first, self.temperature) + info_nce(pb, ta, first, self.temperature)) / 2}

    def choices(self, images: int) -> Choices:
        return Choices(images, "images of the batch")

    def after_step(self, progress: float) -> None:
        student = nn.Sequential(self.encoder, self.projector)
        self.teacher.follow(student, cosine(self.momentum, 1.0, progress))


@full_precision
def info_nce(predictions: Tensor, keys: Tensor, first: int, temperature: float) -> Tensor:
    """Cross entropy of picking `keys[first + i]` for `predictions[i]`, `(n, dim)`, from all keys `(m, dim)`, by cosine
    similarity over the temperature: scalar, a mean over the predictions; at random it is about ln m.

    Keys are those of all processes, predictions this one's: the mean over processes is the loss of the whole batch.
    """
    predictions, keys = (F.normalize(rows, dim=1) for rows in (predictions, keys))
    logits = predictions @ keys.T / temperature
    return F.cross_entropy(logits, first + torch.arange(len(logits), device=logits.device))
