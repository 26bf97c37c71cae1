"""Lightly's parts for methods, put together as its own examples do: transforms on PIL images, heads and losses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightly import loss as losses
from lightly import transforms
from lightly.models import modules, utils
from lightly.models.modules import heads
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from lightly.utils.scheduler import cosine_schedule
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.networks.encoder import Encoder

Step = Callable[[list[Tensor], float], Tensor]
"""Views and progress to the loss."""


class Pictures(TorchDataset):
    """Images as lightly's transforms want them, in memory."""

    def __init__(self, dataset: Dataset, transform: Callable[[Image.Image], Any]) -> None:
        images = dataset.read(dataset.pretraining_rows)["images"].numpy()
        self.images = [Image.fromarray(image[0]) for image in images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Any:
        return self.transform(self.images[number])


class Theirs(nn.Module):
    """One method put together from lightly's parts. Its loss is a part, too: some have buffers, which are to be where
    the method is."""

    def __init__(self, name: str, encoder: Encoder, settings: dict[str, Any]) -> None:
        super().__init__()
        self.encoder, self.settings = encoder, settings
        self.step: Step = getattr(self, f"_{name}")(encoder.dim, **settings)

    def _simclr(self, dim: int, *, projector: tuple[int, ...], temperature: float, **_: Any) -> Step:
        self.head = heads.SimCLRProjectionHead(dim, projector[0], projector[1])
        self.loss = losses.NTXentLoss(temperature)
        return lambda views, _: self.loss(*(self.head(self.encoder(view)) for view in views))

    def _barlow_twins(self, dim: int, *, projector: tuple[int, ...], redundancy: float) -> Step:
        self.head = heads.BarlowTwinsProjectionHead(dim, projector[0], projector[-1])
        self.loss = losses.BarlowTwinsLoss(redundancy)
        return lambda views, _: self.loss(*(self.head(self.encoder(view)) for view in views))

    def _vicreg(
        self, dim: int, *, projector: tuple[int, ...], invariance: float, variance: float, covariance: float
    ) -> Step:
        self.head = heads.VICRegProjectionHead(dim, projector[0], projector[-1], num_layers=len(projector))
        self.loss = losses.VICRegLoss(invariance, variance, covariance)
        return lambda views, _: self.loss(*(self.head(self.encoder(view)) for view in views))

    def _byol(self, dim: int, *, projector: tuple[int, ...], predictor: int, momentum: float) -> Step:
        self.head = heads.BYOLProjectionHead(dim, *projector)
        self.predictor = heads.BYOLPredictionHead(projector[-1], predictor, projector[-1])
        self._add_teacher()
        self.loss = losses.NegativeCosineSimilarity()

        def step(views: list[Tensor], progress: float) -> Tensor:
            self._move_teacher(cosine_schedule(round(1000 * progress), 1001, momentum, 1.0))
            predicted = [self.predictor(self.head(self.encoder(view))) for view in views]
            targets = [self._taught(view) for view in views]
            return 0.5 * (self.loss(predicted[0], targets[1]) + self.loss(predicted[1], targets[0]))

        return step

    def _moco_v2(
        self, dim: int, *, projector: tuple[int, ...], queue: int, temperature: float, momentum: float
    ) -> Step:
        self.head = heads.MoCoProjectionHead(dim, *projector, batch_norm=True)
        self._add_teacher()
        self.loss = losses.NTXentLoss(temperature, memory_bank_size=(queue, projector[-1]))

        def step(views: list[Tensor], progress: float) -> Tensor:
            self._move_teacher(momentum)
            return self.loss(self.head(self.encoder(views[0])), self._taught(views[1]))

        return step

    def _dino(
        self,
        dim: int,
        *,
        projector: tuple[int, ...],
        prototypes: int,
        temperature: float,
        teacher_temperature: float,
        momentum: float,
        centre_momentum: float = 0.9,
        **_: Any,
    ) -> Step:
        self.head, copied = (
            heads.DINOProjectionHead(dim, projector[0], projector[-1], prototypes, batch_norm=True) for _ in range(2)
        )
        copied.load_state_dict(self.head.state_dict())
        self._add_teacher(copied)
        self.loss = losses.DINOLoss(prototypes, student_temp=temperature, center_momentum=centre_momentum)

        def step(views: list[Tensor], progress: float) -> Tensor:
            self._move_teacher(cosine_schedule(round(1000 * progress), 1001, momentum, 1.0))
            answers = [self.head(self.encoder(view)) for view in views]
            return self.loss([self._taught(view) for view in views[:2]], answers, teacher_temp=teacher_temperature)

        return step

    def _swav(
        self,
        dim: int,
        *,
        projector: tuple[int, ...],
        prototypes: int,
        temperature: float,
        epsilon: float,
        iterations: int = 3,
        **_: Any,
    ) -> Step:
        self.head = heads.SwaVProjectionHead(dim, *projector)
        self.prototypes = heads.SwaVPrototypes(projector[-1], prototypes)
        self.loss = losses.SwaVLoss(temperature, iterations, epsilon)

        def step(views: list[Tensor], progress: float) -> Tensor:
            self.prototypes.normalize()
            z = [nn.functional.normalize(self.head(self.encoder(view)), dim=1) for view in views]
            scores: list[Any] = [self.prototypes(one) for one in z]
            return self.loss(scores[:2], scores[2:])

        return step

    def _mae(self, dim: int, *, mask: float, decoder_width: int, decoder_depth: int) -> Step:
        encoder = self.encoder
        patch, width, channels = encoder.settings["patch_size"], encoder.map_dim, encoder.channels
        self.vit = modules.MaskedVisionTransformerTIMM(encoder.network)
        count = (encoder.image_size // patch) ** 2
        self.embed = nn.Linear(width, decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(count, decoder_width, decoder_depth, decoder_width // 32)
        self.draw = nn.Linear(decoder_width, channels * patch**2)

        def step(views: list[Tensor], progress: float) -> Tensor:
            (images,) = views
            n = len(images)
            keep, hidden = utils.random_token_mask((n, count + 1), mask_ratio=mask)
            seen = self.embed(self.vit.encode(images, idx_keep=keep))
            tokens = utils.repeat_token(self.decoder.mask_token, (n, count + 1)).type_as(seen)
            drawn = self.decoder(utils.set_at_index(tokens, keep, seen))
            patches = utils.normalize_mean_var(utils.patchify(images, patch))
            target = utils.get_at_index(patches, hidden - 1)
            return nn.functional.mse_loss(self.draw(utils.get_at_index(drawn, hidden)), target)

        return step

    def _add_teacher(self, head: nn.Module | None = None) -> None:
        # A head with torch's weight norm can't be copied: it comes with its copy.
        head = head or copy.deepcopy(self.head)
        self.teacher = nn.Sequential(copy.deepcopy(self.encoder), head).requires_grad_(False)

    def _move_teacher(self, momentum: float) -> None:
        utils.update_momentum(self.encoder, self.teacher[0], momentum)  # pyright: ignore[reportArgumentType]
        utils.update_momentum(self.head, self.teacher[1], momentum)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def _taught(self, view: Tensor) -> Tensor:
        return self.teacher(view)


def transform_of(name: str, form: ImageFormat, views: dict[str, Any]) -> Callable[[Image.Image], Any]:
    """Lightly's transform for a method, as strong as ours; grey images have no saturation and hue."""
    size, coloured = form.size, form.channels == 3
    normalize = {"mean": list(form.mean), "std": list(form.std)}
    if name == "mae":
        return transforms.MAETransform(size, min_scale=0.6, normalize=normalize)
    colour, blur, smallest = views["colour"], views["blur"].p, views["crop"].smallest
    same = {
        "hf_prob": views.get("flip", 0.5),
        "cj_prob": colour.jitter,
        "cj_strength": 1.0,
        "cj_bright": colour.brightness,
        "cj_contrast": colour.contrast,
        "cj_sat": colour.saturation if coloured else 0.0,
        "cj_hue": colour.hue if coloured else 0.0,
        "random_gray_scale": colour.grey if coloured else 0.0,
        "normalize": normalize,
    }
    if name in ("dino", "swav"):
        crops = views["local"]
        local, scale, count = round(crops.size * size), crops.scale, crops.crops
        if name == "swav":
            return transforms.SwaVTransform(
                (size, local), (2, count), (smallest, scale[0]), (1.0, scale[1]), gaussian_blur=blur, **same
            )
        return transforms.DINOTransform(
            size, (smallest, 1.0), local, scale, count, gaussian_blur=(blur,) * 3, solarization_prob=0.0, **same
        )
    return transforms.SimCLRTransform(size, min_scale=smallest, gaussian_blur=blur, **same)
