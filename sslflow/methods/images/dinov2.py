"""DINOv2: DINO and iBOT with answers balanced over the batch, and features that keep apart (arXiv:2304.07193); or
SimDINOv2, without answers (arXiv:2502.10385)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.answers import TwoHeads, balanced, mean_over_asked, patch_cross_entropy, require_vit
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
    ends at 1. With a `coding_rate` above 0 there are no answers to choose among: what the heads' layers give is brought
    near to the teacher's, and that weight keeps it from being the same for all images; `prototypes`, `spread` and the
    temperatures then mean nothing. Raises `ValueError` for an encoder that is no ViT.
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
        coding_rate: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        require_vit(encoder, "dinov2")
        self.encoder = encoder
        answers = 0 if coding_rate else prototypes
        self.head = _head(mlp(encoder.dim, *projector), projector[-1], answers)
        self.patch_head = _head(mlp(encoder.map_dim, *projector, norm=False), projector[-1], answers)
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.map_dim))
        self.teacher = Teacher(self.student)
        self.prototypes, self.patches, self.spread, self.temperature = prototypes, patches, spread, temperature
        self.teacher_temperature = teacher_temperature_start, teacher_temperature, teacher_warmup
        self.momentum, self.coding_rate = momentum, coding_rate

    @property
    def student(self) -> TwoHeads:
        """What the teacher follows."""
        return TwoHeads(self.encoder, self.head, self.patch_head)

    def training_step(self, batch: Batch) -> Losses:
        *crops, blocks = batch.views
        large, hidden = torch.cat(crops[:2]), hidden_patches(blocks, self.encoder.across)
        taught, taught_patches, _ = self.teacher(large, hidden)
        seen, patches, features = self.student(large, hidden, self.mask_token)
        seen = seen.unflatten(0, (2, -1))
        if len(crops) > 2:
            seen = torch.cat([seen, forward_crops(nn.Sequential(self.encoder, self.head), crops[2:])])
        if self.coding_rate:
            return self._without_answers(taught.unflatten(0, (2, -1)), taught_patches, seen, patches, hidden)
        start, end, warmup = self.teacher_temperature
        sharp = linear(start, end, batch.progress, until=warmup)
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

    def _without_answers(
        self, taught: Tensor, taught_patches: Tensor, seen: Tensor, patches: Tensor, hidden: Tensor
    ) -> Losses:
        of_images = swapped_distance(taught, seen)
        of_patches = mean_over_asked(half_squared(taught_patches, patches), hidden)
        lacking = torch.stack([rate_lacking(gather(part)) for part in seen[:2]]).mean()
        return {
            "loss": of_images + self.patches * of_patches + self.coding_rate * lacking,
            "images": of_images,
            "patches": of_patches,
            "rate_lacking": lacking,
        }

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.student, cosine(self.momentum, 1.0, progress))

    def projections(self, features: Tensor) -> Tensor:
        return self.head(features)

    def choices(self, images: int) -> Choices | None:
        return None if self.coding_rate else Choices(self.prototypes, "prototypes")


def _head(layers: nn.Module, dim: int, prototypes: int) -> nn.Module:
    return nn.Sequential(layers, Prototypes(dim, prototypes)) if prototypes else layers


@full_precision
def half_squared(a: Tensor, b: Tensor) -> Tensor:
    """Half of the squared distance of vectors, `(…, k)`, after scaling to length 1: 1 − cosine, `(…)`."""
    return 1 - F.cosine_similarity(a, b, dim=-1)


def swapped_distance(targets: Tensor, seen: Tensor) -> Tensor:
    """Mean `half_squared` of every crop's vectors, `(crops, n, k)`, and the targets of every other one, `(t, n, k)`, of
    the first t crops: scalar."""
    apart = half_squared(targets[:, None], seen[None]).mean(dim=2)
    others = 1 - torch.eye(*apart.shape, device=apart.device, dtype=apart.dtype)
    return (apart * others).sum() / others.sum()


@full_precision
def rate_lacking(vectors: Tensor, precision: float = 0.5) -> Tensor:
    """How much of the largest coding rate that n vectors of k numbers can have those given, `(n, k)`, lack after
    scaling to length 1: a scalar, 0 where they are spread evenly over all directions that n of them can take, near 1
    where all are the same.

    The rate is ½ log det(1 + k / (n · precision) ZᵀZ), worked out on the smaller side.
    """
    z = F.normalize(vectors, dim=1)
    n, k = z.shape
    scale, fewer = k / (n * precision), min(n, k)
    products = z @ z.T if n < k else z.T @ z
    # Half of the log of the determinant.
    rate = torch.linalg.cholesky(torch.eye(fewer, device=z.device, dtype=z.dtype) + scale * products)
    rate = rate.diagonal().log().sum()
    largest = fewer / 2 * math.log(1 + scale * n / fewer)
    return 1 - rate / largest


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
