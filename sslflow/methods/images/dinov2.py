"""DINOv2: DINO and iBOT with answers balanced over the batch, and features that keep apart (arXiv:2304.07193)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.answers import TwoHeads, balanced, patch_cross_entropy, require_vit
from sslflow.networks.crops import forward_crops, swapped_cross_entropy
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import Prototypes, mlp
from sslflow.networks.teacher import Teacher
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Count, Fraction, NonNegative, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.training.schedules import cosine, linear
from sslflow.views.blocks import MaskedCrops, hidden_patches


class DINOv2(Method):
    """The teacher sees the two large crops whole; the student sees them with a mask token in place of some patches, and
    small crops.

    Settings: `projector`, widths of the heads' layers, of which that of patches has no BatchNorm; `prototypes`, number
    of answers of either head; `patches`, weight of the loss of hidden patches, and `spread`, of KoLeo, beside that of
    images; `temperature`, the student's; `teacher_temperature`, softness of the balanced answers, reached from
    `teacher_temperature_start` when a share of `teacher_warmup` of the run is done; `momentum`, the teacher's, which
    ends at 1. Raises `ValueError` for an encoder that is no ViT.
    """

    Views = MaskedCrops

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 2048, 256),
        prototypes: Count = 65536,
        patches: NonNegative = 1.0,
        spread: NonNegative = 0.1,
        temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        teacher_temperature_start: Positive = 0.04,
        teacher_warmup: Fraction = 0.1,
        momentum: Fraction = 0.992,
    ) -> None:
        super().__init__()
        require_vit(encoder, "dinov2")
        self.encoder = encoder
        self.head = nn.Sequential(mlp(encoder.dim, *projector), Prototypes(projector[-1], prototypes))
        self.patch_head = nn.Sequential(
            mlp(encoder.map_dim, *projector, norm=False), Prototypes(projector[-1], prototypes)
        )
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.map_dim))
        self.teacher = Teacher(self.student)
        self.prototypes, self.patches, self.spread, self.temperature = prototypes, patches, spread, temperature
        self.teacher_temperature = teacher_temperature_start, teacher_temperature, teacher_warmup
        self.momentum = momentum

    @property
    def student(self) -> TwoHeads:
        """What the teacher follows."""
        return TwoHeads(self.encoder, self.head, self.patch_head)

    def training_step(self, batch: Batch) -> Losses:
        *crops, blocks = batch.views
        large, hidden = torch.cat(crops[:2]), hidden_patches(blocks, self.encoder.across)
        start, end, warmup = self.teacher_temperature
        sharp = linear(start, end, batch.progress, until=warmup)
        taught, taught_patches, _ = self.teacher(large, hidden)
        seen, patches, features = self.student(large, hidden, self.mask_token)
        seen = seen.unflatten(0, (2, -1))
        if len(crops) > 2:
            seen = torch.cat([seen, forward_crops(nn.Sequential(self.encoder, self.head), crops[2:])])
        targets = balanced(taught, sharp).unflatten(0, (2, -1))
        of_images = swapped_cross_entropy(targets, seen.float() / self.temperature)
        of_patches = patch_cross_entropy(balanced(taught_patches, sharp), patches / self.temperature, hidden)
        koleo = torch.stack([nearest_apart(gather(part)) for part in features.chunk(2)]).sum()
        asked = 1 + self.patches * hidden.any(dim=1).float().mean()
        return {
            "loss": of_images + self.patches * of_patches + self.spread * koleo,
            "chance_loss": asked * math.log(self.prototypes) + self.spread * koleo.detach(),
            "images": of_images,
            "patches": of_patches,
            "koleo": koleo,
            "teacher_entropy": -torch.special.xlogy(targets, targets).sum(dim=2).mean(),
        }

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.student, cosine(self.momentum, 1.0, progress))

    def projections(self, features: Tensor) -> Tensor:
        return self.head(features)

    def choices(self, images: int) -> Choices:
        return Choices(self.prototypes, "prototypes")


@full_precision
def nearest_apart(features: Tensor, least: float = 1e-4) -> Tensor:
    """KoLeo (arXiv:1806.03198): minus the logarithm of each feature's distance, after scaling to length 1, from that
    which is nearest to it, a mean over the features `(n, dim)`: scalar.

    Distances count as √(d² + least²), so that equal features give a finite value, and no gradient; a single one gives
    0.
    """
    if len(features) < 2:
        return features.sum() * 0
    z = F.normalize(features, dim=1)
    alike = (z @ z.T).detach().fill_diagonal_(-2)
    squared = (z - z[alike.argmax(dim=1)]).square().sum(dim=1)
    return -(squared + least**2).log().mean() / 2
