"""What was read of a data set to the tensors that a method sees, batched, on the device; here, of images. Kornia is
imported here and in `places` alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat, VolumeFormat
from sslflow.data.normalise import Normalise
from sslflow.settings.params import Fraction, Natural, NonNegative

Share = Annotated[float, Gt(0), Le(1)]
Hue = Annotated[float, Ge(0), Le(0.5)]


class Views(nn.Module, ABC):
    """Turns examples as they are read from the disk into a tuple of tensors that a method computes its loss from:
    normalised float views, and whatever else is drawn by chance (a mask, an order). All that is random in a step is
    drawn here, from torch's global generator; row i of every tensor belongs to example i. Views of images read the
    field `images`, uint8 `(n, c, h, w)`."""

    resizes: ClassVar[bool] = False
    """Whether parts of images are cut out and resized, so that images may be larger than those that an encoder sees."""
    numbers_batch: ClassVar[tuple[int, ...]] = ()
    """Which of the tensors hold numbers of other examples of the batch, −1 for none."""

    def __init__(self, format: ImageFormat | VolumeFormat) -> None:
        super().__init__()
        self.normalise = Normalise(format.mean, format.std)

    @abstractmethod
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        """The views, `(n, …)` each."""

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """What of the views can be looked at, uint8 `(n, c, side, side)` each."""
        return [self.normalise.restore(view) for view in views]


class CropView(Views):
    """One view: a random shift with reflected borders, and a flip; little is changed, so that the task stays in the
    image."""

    def __init__(
        self,
        format: ImageFormat,
        *,
        shift: Fraction = 0.1,
        flip: Fraction = 0.5,
    ) -> None:
        """`shift`: largest move, as a share of the image's side; `flip`: probability of a horizontal flip. Raises
        `ValueError` for a move by a whole side, beyond which nothing is left to reflect."""
        super().__init__(format)
        padding = round(shift * format.size)
        if padding >= format.size:
            raise ValueError(f"views.shift {shift:g} moves images by their whole side: set it to less, such as 0.1")
        self.augment = nn.Sequential(
            K.RandomCrop((format.size, format.size), padding=padding, padding_mode="reflect")
            if padding
            else nn.Identity(),
            K.RandomHorizontalFlip(p=flip) if flip else nn.Identity(),
        )

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return (self.normalise(self.augment(fields["images"].float())),)


@dataclass(frozen=True)
class Crop:
    """A part of the image, anywhere in it, resized to the whole. `smallest`: share of the area that it has at least."""

    smallest: Share = 0.2


@dataclass(frozen=True)
class Colour:
    """Other colours. `brightness` to `hue`: strengths, with the probability `jitter`; `grey`: probability that an image
    loses all colour. Defaults are those of MoCo v2 (arXiv:2003.04297)."""

    brightness: Fraction = 0.4
    contrast: Fraction = 0.4
    saturation: Fraction = 0.4
    hue: Hue = 0.1
    jitter: Fraction = 0.8
    grey: Fraction = 0.2


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with the probability `p`, its deviation `sigma` drawn between two, in pixels."""

    p: Fraction = 0.5
    sigma: tuple[NonNegative, NonNegative] = (0.1, 2.0)

    def __post_init__(self) -> None:
        """Raises `ValueError` where the smallest deviation is above the largest."""
        _in_order("sigma", self.sigma)


@dataclass(frozen=True)
class Second:
    """Probabilities of the second view that differ from the first's: BYOL, MoCo v3, Barlow Twins and DINO have
    `Second(blur=0.1, solarize=0.2)` beside a first of `Blur(p=1.0)`. None: as in the first."""

    jitter: Fraction | None = None
    grey: Fraction | None = None
    blur: Fraction | None = None
    solarize: Fraction | None = None


@dataclass(frozen=True)
class Local:
    """Small crops of small parts. `crops`: how many; `size`: their side, as a share of the image's; `scale`: smallest
    and largest share of the area that they show; `blur`: its probability, None: as in the first view."""

    crops: Natural = 6
    size: Share = 0.5
    scale: tuple[Share, Share] = (0.05, 0.4)
    blur: Fraction | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` where the smallest share is above the largest."""
        _in_order("scale", self.scale)


def _in_order(name: str, pair: tuple[float, float]) -> None:
    if pair[0] > pair[1]:
        raise ValueError(f"{name} is {pair[0]:g} to {pair[1]:g}: expected the smaller one first")


class TwoViews(Views):
    """Two independent views of every image: crop, flip, colours, blur, as in SimCLR (arXiv:2002.05709).

    Colours change as torchvision's ColorJitter changes them, with any number of channels: brightness multiplies the
    image, contrast its differences from its mean, in one draw and an order by chance. Hue and saturation, and turning
    grey, exist for images of three channels only.
    """

    resizes = True

    def __init__(
        self,
        format: ImageFormat,
        *,
        crop: Crop = Crop(),
        flip: Fraction = 0.5,
        colour: Colour = Colour(),
        blur: Blur = Blur(),
        solarize: Fraction = 0.0,
        second: Second = Second(),
    ) -> None:
        """`flip`, `solarize`: probabilities; `second`: what differs in the second view."""
        super().__init__(format)
        placed = placing(format.size, (crop.smallest, 1.0), flip)
        first = colour, blur, solarize
        other = (
            replace(colour, jitter=_or(second.jitter, colour.jitter), grey=_or(second.grey, colour.grey)),
            replace(blur, p=_or(second.blur, blur.p)),
            _or(second.solarize, solarize),
        )
        self.augment = nn.Sequential(*placed, *colouring(format, *first))
        self.augment_second = nn.Sequential(*placed, *colouring(format, *other)) if other != first else None

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        images = fields["images"].float() / 255
        if self.augment_second is None:
            both = self.augment(torch.cat([images, images]))
        else:
            both = torch.cat([self.augment(images), self.augment_second(images)])
        first, second = self.normalise(both * 255).chunk(2)
        return first, second


class MultiCrop(TwoViews):
    """Two views as `TwoViews` makes them, the global crops, and smaller ones of small parts, the local crops, as in
    SwAV (arXiv:2006.09882): flips and colours are those of the first view."""

    def __init__(
        self,
        format: ImageFormat,
        *,
        crop: Crop = Crop(smallest=0.4),
        local: Local = Local(),
        flip: Fraction = 0.5,
        colour: Colour = Colour(),
        blur: Blur = Blur(),
        solarize: Fraction = 0.0,
        second: Second = Second(),
    ) -> None:
        """`local`: the local crops; the rest as for `TwoViews`."""
        super().__init__(format, crop=crop, flip=flip, colour=colour, blur=blur, solarize=solarize, second=second)
        self.local_crops = local.crops
        self.augment_local = nn.Sequential(
            *placing(max(1, round(local.size * format.size)), local.scale, flip),
            *colouring(format, colour, replace(blur, p=_or(local.blur, blur.p)), solarize),
        )

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        """Both global crops, then the local ones."""
        views = super().forward(fields)
        if not self.local_crops:
            return views
        local = self.augment_local((fields["images"].float() / 255).repeat(self.local_crops, 1, 1, 1))
        return *views, *self.normalise(local * 255).chunk(self.local_crops)

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """All crops, the local ones as large as the others."""
        return super().shown(tuple(F.interpolate(view, size=views[0].shape[-2:]) for view in views))


def placing(side: int, scale: tuple[float, float], flip: float) -> list[nn.Module]:
    """Crops of a share of the area between two, resized to `side` pixels, and flips with the probability `flip`."""
    crop = K.RandomResizedCrop((side, side), scale=scale)
    return [crop, K.RandomHorizontalFlip(p=flip)] if flip else [crop]


def colouring(format: ImageFormat, colour: Colour, blur: Blur, solarize: float) -> list[nn.Module]:
    """Changes of colours, blur and, with the probability `solarize`, bright pixels inverted."""
    steps: list[nn.Module] = []
    if colour.jitter:
        strengths = (colour.saturation, colour.hue) if format.channels == 3 else (0.0, 0.0)
        steps.append(K.ColorJitter(colour.brightness, colour.contrast, *strengths, p=colour.jitter))
    if colour.grey and format.channels == 3:
        steps.append(K.RandomGrayscale(p=colour.grey))
    if blur.p:
        kernel = max(3, format.size // 10 // 2 * 2 + 1)
        steps.append(K.RandomGaussianBlur((kernel, kernel), blur.sigma, p=blur.p))
    if solarize:
        steps.append(K.RandomSolarize(p=solarize))
    return steps


def _or(own: float | None, other: float) -> float:
    return other if own is None else own


def lab(images: Tensor) -> Tensor:
    """Images `(n, 3, h, w)` of values from 0 to 1 in CIE Lab: lightness, from 0 to 100, and the colours a and b, 0 for
    grey."""
    return rgb_to_lab(images)


def rgb_from_lab(images: Tensor) -> Tensor:
    """The opposite of `lab`; colours that no screen can show become ones that it can."""
    return lab_to_rgb(images)
