"""DINO: tell what a slow copy of oneself answers about another crop of the image (arXiv:2104.14294)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.networks.answers import batch_mean, dino_targets
from sslflow.networks.crops import forward_crops, swapped_cross_entropy
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import Prototypes, mlp
from sslflow.networks.teacher import Teacher
from sslflow.settings.params import Count, Fraction, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.training.schedules import cosine, linear
from sslflow.views.images import MultiCrop


class DINO(Method):
    """The teacher sees the two global crops, the student all crops.

    Nothing keeps the teacher from giving all images the same answer but two things that work against each other: its
    `centre`, a running mean of its own answers, is subtracted, so that no prototype wins everywhere; its temperature is
    low, so that its answers don't become the same for all prototypes.

    Settings: `projector`, widths of the head's layers, with BatchNorm and ReLU between them (the authors' have GELU);
    `prototypes`, number of answers; `temperature`, the student's; `teacher_temperature`, reached from
    `teacher_temperature_start` when a share of `teacher_warmup` of the run is done; `momentum`, the teacher's, which
    ends at 1; `centre_momentum`.
    """

    Views = MultiCrop
    moving_targets = True

    centre: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 2048, 256),
        prototypes: Count = 65536,
        temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        teacher_temperature_start: Positive = 0.04,
        teacher_warmup: Fraction = 0.1,
        momentum: Fraction = 0.996,
        centre_momentum: Fraction = 0.9,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(mlp(encoder.dim, *projector), Prototypes(projector[-1], prototypes))
        self.teacher = Teacher(self.student)
        self.register_buffer("centre", torch.zeros(prototypes))
        self.prototypes, self.temperature = prototypes, temperature
        self.teacher_temperature = teacher_temperature_start, teacher_temperature, teacher_warmup
        self.momentum, self.centre_momentum = momentum, centre_momentum

    @property
    def student(self) -> nn.Module:
        """What the teacher follows."""
        return nn.Sequential(self.encoder, self.head)

    def training_step(self, batch: Batch) -> Losses:
        start, end, warmup = self.teacher_temperature
        teacher = forward_crops(self.teacher, batch.views[:2])
        targets = dino_targets(teacher, self.centre, linear(start, end, batch.progress, until=warmup))
        student = forward_crops(self.student, batch.views)
        loss = swapped_cross_entropy(targets, student.float() / self.temperature)
        # After the loss: an image must not move the centre that its own answer is seen from.
        self.centre.lerp_(batch_mean(teacher), 1 - self.centre_momentum)
        return {"loss": loss, "teacher_entropy": -torch.special.xlogy(targets, targets).sum(dim=2).mean()}

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.student, cosine(self.momentum, 1.0, progress))

    def projections(self, features: Tensor) -> Tensor:
        return self.head(features)

    def choices(self, images: int) -> Choices:
        return Choices(self.prototypes, "prototypes")
