"""A domain as adaptation sees it: numbered inputs of a body, either images or features that were worked out before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sslflow.adaptation.task import Task
from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.normalise import Normalise
from sslflow.features.extract import extract
from sslflow.networks.encoder import Encoder
from sslflow.views.images import CropView, Views


@dataclass(frozen=True)
class Domain:
    """The images of one domain, numbered from 0, as inputs of an adapter's body."""

    size: int
    augmented: Callable[[Tensor], Tensor]
    """Inputs of the images numbered so, another view in each call."""
    plain: Callable[[Tensor], Tensor]
    """The same without augmentation."""
    raw: Callable[[Tensor], Tensor] | None = None
    """The images themselves, uint8 `(n, c, side, side)`; None where there are only features of them."""

    def images(self, numbers: Tensor) -> Tensor:
        """Images numbered so. Raises `ValueError` where there are only features."""
        if self.raw is None:
            raise ValueError("a self-supervised loss beside adaptation needs the images: set adapt.frozen to false")
        return self.raw(numbers)


class Residual(nn.Module):
    """A trainable layer on frozen features `(n, dim)`; it begins by changing nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layer(features)


class Centred(nn.Module):
    """An encoder whose features are centred and scaled, over the batch and then over what was seen, so that cosines
    tell them apart."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.norm = encoder, nn.BatchNorm1d(encoder.dim, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.encoder(images))


def standardised(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Frozen features `(m, dim)` and `(n, dim)` with mean 0 and standard deviation 1 over both domains together. Raises
    `ValueError` for features that are not finite."""
    both = torch.cat([source, target])
    wrong = int((~both.isfinite().all(dim=1)).sum())
    if wrong:
        raise ValueError(f"the features of {wrong} of {len(both)} images are not finite; is the encoder a good one?")
    mean, scale = both.mean(dim=0), both.std(dim=0).clamp_min(1e-6)
    return (source - mean) / scale, (target - mean) / scale


def of_features(features: Tensor) -> Domain:
    """A domain of frozen features `(n, dim)`."""
    return Domain(len(features), features.__getitem__, features.__getitem__)


def frozen_inputs(
    encoder: Encoder, task: Task, device: torch.device, *, settings: Mapping[str, Any]
) -> tuple[Domain, Domain, nn.Module]:
    """Source and target of a task as frozen features of an encoder, worked out by `extract` with its `settings`, and
    the body that learns on them. Raises `ValueError` for features that are not finite."""
    found = [
        torch.from_numpy(extract(encoder, images, rows, device, **settings)).to(device)
        for images, rows in ((task.source, task.source_rows), (task.target, task.target_rows))
    ]
    source, target = standardised(*found)
    return of_features(source), of_features(target), Residual(encoder.dim)


def image_inputs(
    encoder: Encoder, task: Task, device: torch.device, *, settings: Mapping[str, Any]
) -> tuple[Domain, Domain, nn.Module]:
    """Source and target of a task as images, seen in `CropView`s of these `settings`, and the encoder as the body."""
    domains = []
    for images, rows in ((task.source, task.source_rows), (task.target, task.target_rows)):
        views = CropView(images.format, **settings).to(device)
        normalise = Normalise(images.format.mean, images.format.std).to(device)
        domains.append(of_images(images, torch.from_numpy(rows), views, normalise, device))
    return domains[0], domains[1], Centred(encoder)


def of_images(dataset: Dataset, rows: Tensor, views: Views, normalise: Normalise, device: torch.device) -> Domain:
    """A domain of prepared images: the first of the `views` of each is what training sees."""

    def read(numbers: Tensor) -> Fields:
        return dataset.read(rows[numbers.cpu()]).to(device)

    return Domain(
        len(rows),
        lambda numbers: views(read(numbers))[0],
        lambda numbers: normalise(read(numbers)["images"]),
        lambda numbers: read(numbers)["images"],
    )
