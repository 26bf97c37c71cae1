"""What was read of a data set to the tensors that a method sees, batched, on the device; here, of images. The only file
that imports Kornia."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.normalise import Normalise
from sslflow.settings.params import Fraction, Natural, NonNegative

Share = Annotated[float, Gt(0), Le(1)]
Hue = Annotated[float, Ge(0), Le(0.5)]


class Views(nn.Module, ABC):
    """Turns examples as they are read from the disk into a tuple of tensors that a method computes its loss from:
    normalised float views, and whatever else is drawn by chance (a mask, an order). All that is random in a step is
    drawn here, from torch's global generator; row i of every tensor belongs to example i. Views of images read the
    field `images`, uint8 `(n, c, h, w)`."""

    numbers_batch: ClassVar[tuple[int, ...]] = ()
    """Which of the tensors hold numbers of other examples of the batch, −1 for none."""

    def __init__(self, format: ImageFormat) -> None:
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
        """`shift`: largest move, as a share of the image's side; `flip`: probability of a horizontal flip."""
        super().__init__(format)
        padding = round(shift * format.size)
        self.augment = nn.Sequential(
            K.RandomCrop((format.size, format.size), padding=padding, padding_mode="reflect")
            if padding
            else nn.Identity(),
            K.RandomHorizontalFlip(p=flip) if flip else nn.Identity(),
        )

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return (self.normalise(self.augment(fields["images"].float())),)


class TwoViews(Views):
    """Two independent views of every image: crop, flip, colours, blur, as in SimCLR (arXiv:2002.05709).

    Colours change as torchvision's ColorJitter changes them, with any number of channels: brightness multiplies the
    image, contrast its differences from its mean, in one draw and an order by chance. Hue and saturation, and turning
    grey, exist for images of three channels only.
    """

    def __init__(
        self,
        format: ImageFormat,
        *,
        smallest_crop: Share = 0.2,
        flip: Fraction = 0.5,
        brightness: Fraction = 0.4,
        contrast: Fraction = 0.4,
        saturation: Fraction = 0.4,
        hue: Hue = 0.1,
        jitter: Fraction = 0.8,
        grey: Fraction = 0.2,
        blur: Fraction = 0.5,
        blur_sigma: tuple[NonNegative, NonNegative] = (0.1, 2.0),
        solarize: Fraction = 0.0,
    ) -> None:
        """`smallest_crop`: share of the area; `brightness` to `hue`: strengths; `flip`, `jitter`, `grey`, `blur`,
        `solarize`: probabilities; `blur_sigma` in pixels."""
        super().__init__(format)
        channels, side = format.channels, (format.size, format.size)
        steps: list[nn.Module] = [K.RandomResizedCrop(side, scale=(smallest_crop, 1.0))]
        if flip:
            steps.append(K.RandomHorizontalFlip(p=flip))
        if jitter:
            colours = (saturation, hue) if channels == 3 else (0.0, 0.0)
            steps.append(K.ColorJitter(brightness, contrast, *colours, p=jitter))
        if grey and channels == 3:
            steps.append(K.RandomGrayscale(p=grey))
        if blur:
            kernel = max(3, format.size // 10 // 2 * 2 + 1)
            steps.append(K.RandomGaussianBlur((kernel, kernel), blur_sigma, p=blur))
        if solarize:
            steps.append(K.RandomSolarize(p=solarize))
        self.augment = nn.Sequential(*steps)

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        images = fields["images"].float() / 255
        both = self.augment(torch.cat([images, images]))
        first, second = self.normalise(both * 255).chunk(2)
        return first, second


class MultiCrop(TwoViews):
    """Two views as `TwoViews` makes them, the global crops, and smaller ones of small parts, the local crops, as in
    SwAV (arXiv:2006.09882): flips and colours are the same for both."""

    def __init__(
        self,
        format: ImageFormat,
        *,
        smallest_crop: Share = 0.4,
        local_crops: Natural = 6,
        local_size: Share = 0.5,
        local_scale: tuple[Share, Share] = (0.05, 0.4),
        flip: Fraction = 0.5,
        brightness: Fraction = 0.4,
        contrast: Fraction = 0.4,
        saturation: Fraction = 0.4,
        hue: Hue = 0.1,
        jitter: Fraction = 0.8,
        grey: Fraction = 0.2,
        blur: Fraction = 0.5,
        blur_sigma: tuple[NonNegative, NonNegative] = (0.1, 2.0),
        solarize: Fraction = 0.0,
    ) -> None:
        """`local_size`: side of a local crop, as a share of the image's; `local_scale`: smallest and largest share of
        the area that it shows; the rest as for `TwoViews`."""
        super().__init__(
            format, smallest_crop=smallest_crop, flip=flip, brightness=brightness, contrast=contrast,
            saturation=saturation, hue=hue, jitter=jitter, grey=grey, blur=blur, blur_sigma=blur_sigma,
            solarize=solarize,
        )  # fmt: skip
        side = max(1, round(local_size * format.size))
        self.local_crops = local_crops
        self.augment_local = nn.Sequential(K.RandomResizedCrop((side, side), scale=local_scale), *self.augment[1:])

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


def lab(images: Tensor) -> Tensor:
    """Images `(n, 3, h, w)` of values from 0 to 1 in CIE Lab: lightness, from 0 to 100, and the colours a and b, 0 for
    grey."""
    return rgb_to_lab(images)


def rgb_from_lab(images: Tensor) -> Tensor:
    """The opposite of `lab`; colours that no screen can show become ones that it can."""
    return lab_to_rgb(images)
