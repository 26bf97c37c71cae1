"""iBOT: DINO, and for patches that the student doesn't see, what its teacher answers about them (arXiv:2111.07832)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslflow.networks.answers import (
    TwoHeads,
    batch_mean,
    dino_targets,
    mean_over_all,
    patch_cross_entropy,
    require_vit,
)
from sslflow.networks.crops import forward_crops, swapped_cross_entropy
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import Prototypes, mlp
from sslflow.networks.teacher import Teacher
from sslflow.settings.params import Count, Fraction, NonNegative, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.training.schedules import cosine, linear
from sslflow.views.blocks import MaskedCrops, hidden_patches


class IBOT(Method):
    """The teacher sees the two large crops whole; the student sees them with a mask token in place of some patches, and
    small crops.

    Settings: `projector`, widths of the heads' layers, of which that of patches has no BatchNorm; `prototypes`, number
    of answers of either head; `patches`, weight of the loss of hidden patches beside that of images; `temperature`, the
    student's; `teacher_temperature`, reached from `teacher_temperature_start` when a share of `teacher_warmup` of the
    run is done; `momentum`, the teacher's, which ends at 1; `centre_momentum`. Raises `ValueError` for an encoder that
    is no ViT.
    """

    Views = MaskedCrops
    moving_targets = True

    centre: Tensor
    patch_centre: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 2048, 256),
        prototypes: Count = 8192,
        patches: NonNegative = 1.0,
        temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        teacher_temperature_start: Positive = 0.04,
        teacher_warmup: Fraction = 0.1,
        momentum: Fraction = 0.996,
        centre_momentum: Fraction = 0.9,
    ) -> None:
        super().__init__()
        require_vit(encoder, "ibot")
        self.encoder = encoder
        self.head = nn.Sequential(mlp(encoder.dim, *projector), Prototypes(projector[-1], prototypes))
        self.patch_head = nn.Sequential(
            mlp(encoder.map_dim, *projector, norm=False), Prototypes(projector[-1], prototypes)
        )
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.map_dim))
        self.teacher = Teacher(self.student)
        self.register_buffer("centre", torch.zeros(prototypes))
        self.register_buffer("patch_centre", torch.zeros(prototypes))
        self.prototypes, self.patches, self.temperature = prototypes, patches, temperature
        self.teacher_temperature = teacher_temperature_start, teacher_temperature, teacher_warmup
        self.momentum, self.centre_momentum = momentum, centre_momentum

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
        seen, patches, _ = self.student(large, hidden, self.mask_token)
        taught, seen = taught.unflatten(0, (2, -1)), seen.unflatten(0, (2, -1))
        if len(crops) > 2:
            seen = torch.cat([seen, forward_crops(nn.Sequential(self.encoder, self.head), crops[2:])])
        targets = dino_targets(taught, self.centre, sharp)
        patch_targets = dino_targets(taught_patches[None], self.patch_centre, sharp)[0]
        of_images = swapped_cross_entropy(targets, seen.float() / self.temperature)
        of_patches = patch_cross_entropy(patch_targets, patches / self.temperature, hidden)
        # After the loss: an image must not move the centre that its own answer is seen from.
        self.centre.lerp_(batch_mean(taught), 1 - self.centre_momentum)
        mean, count = mean_over_all(taught_patches)
        self.patch_centre.lerp_(mean, (1 - self.centre_momentum) * (count > 0))
        asked = 1 + self.patches * hidden.any(dim=1).float().mean()
        return {
            "loss": of_images + self.patches * of_patches,
            "chance_loss": asked * math.log(self.prototypes),
            "images": of_images,
            "patches": of_patches,
            "teacher_entropy": -torch.special.xlogy(targets, targets).sum(dim=2).mean(),
        }

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.student, cosine(self.momentum, 1.0, progress))

    def projections(self, features: Tensor) -> Tensor:
        return self.head(features)

    def choices(self, images: int) -> Choices:
        return Choices(self.prototypes, "prototypes")
