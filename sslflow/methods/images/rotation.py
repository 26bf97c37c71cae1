"""RotNet: tell by how many quarter turns an image was rotated (arXiv:1803.07728)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.images import CropView


class Rotation(Method):
    """All four rotations of every image pass through the encoder in each step, as in the paper."""

    Views = CropView
    additive = True

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, nn.Linear(encoder.dim, 4)

    def training_step(self, batch: Batch) -> Losses:
        (view,) = batch.views
        images, turns = rotations(view)
        logits = self.classifier(self.encoder(images)).float()
        accuracy = (logits.argmax(dim=1) == turns).float().mean()
        return {"loss": F.cross_entropy(logits, turns), "accuracy": accuracy}

    def choices(self, images: int) -> Choices:
        return Choices(4, "quarter turns")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Images turned by chance, and turned back by what the classifier says: upright where it is right."""
        (view,) = batch.views
        images, _ = rotations(view)
        pick = torch.arange(len(view), device=view.device)
        turned = images.unflatten(0, (4, len(view)))[pick % 4, pick]
        told = self.classifier(self.encoder(turned)).argmax(dim=1)
        back = torch.stack(
            [torch.rot90(one, -int(turns), dims=(1, 2)) for one, turns in zip(turned, told, strict=True)]
        )
        return {"shown": turned, "righted": back, "upright": view}


def rotations(images: Tensor) -> tuple[Tensor, Tensor]:
    """All four rotations of square images `(n, c, s, s)`: `(4n, c, s, s)` and the number of quarter turns `(4n,)`.

    Pixels are moved, never interpolated: blur would give the angle away.
    """
    turned = torch.cat([torch.rot90(images, turns, dims=(2, 3)) for turns in range(4)])
    return turned, torch.arange(4, device=images.device).repeat_interleave(len(images))
