"""What was read of a data set to the tensors that a method sees, batched, on the device; here, of images. Kornia is
imported here alone, for what is rare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor, nn

from sslflow.data.fields import Fields, Readable
from sslflow.data.formats import ImageFormat, VolumeFormat
from sslflow.data.normalise import Normalise
from sslflow.settings.params import Fraction
from sslflow.views.colouring import Chances, Colouring
from sslflow.views.placing import Placing, shifted
from sslflow.views.strengths import Blur, Colour, Crop, Local, Second


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

    def read(self, dataset: Readable, rows: np.ndarray, numbers: torch.Generator) -> Fields:
        """What `forward` needs of these rows. `numbers`, on the CPU, gives the random numbers that `forward` will draw
        there: views that draw what they look at can leave the rest unread. A thread that reads ahead calls it."""
        return dataset.read(rows)

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
        self.most, self.flip = round(shift * format.size), flip
        if self.most >= format.size:
            raise ValueError(f"views.shift {shift:g} moves images by their whole side: set it to less, such as 0.1")

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return (self.normalise(self.moved(fields["images"])),)

    def moved(self, images: Tensor) -> Tensor:
        """Images `(n, c, s, s)`, each moved and mirrored by its own draw, of the same type and otherwise unchanged."""
        return shifted(images, self.most, self.flip)


class TwoViews(Views):
    """Two independent views of every image: crop, flip, colours, blur, as in SimCLR (arXiv:2002.05709).

    Colours change as torchvision's ColorJitter changes them (`Colouring`). Hue, saturation and turning grey exist for
    images of three channels only.
    """

    crops: ClassVar[int] = 2
    """How many there are."""
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
        first = Chances(colour.jitter, colour.grey, blur.p, solarize)
        other = Chances(
            _or(second.jitter, colour.jitter),
            _or(second.grey, colour.grey),
            _or(second.blur, blur.p),
            _or(second.solarize, solarize),
        )
        self.placing = Placing(format.size, (crop.smallest, 1.0), flip)
        self.colouring = Colouring(format, colour, blur, [first, other][: self.crops])

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return self._views(fields, self.crops, self.placing, self.colouring)

    def _views(self, fields: Fields, count: int, placing: Placing, colouring: Colouring) -> tuple[Tensor, ...]:
        images = fields["images"] / 255
        places = placing.draw(count * len(images), *images.shape[2:], device=images.device)
        return self.normalise(colouring(places.shown(images, corners=True)).mul_(255)).chunk(count)


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
        self.local_placing = Placing(max(1, round(local.size * format.size)), local.scale, flip)
        chances = Chances(colour.jitter, colour.grey, _or(local.blur, blur.p), solarize)
        self.local_colouring = Colouring(format, colour, blur, [chances])

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        """Both global crops, then the local ones."""
        views = super().forward(fields)
        if not self.local_crops:
            return views
        return *views, *self._views(fields, self.local_crops, self.local_placing, self.local_colouring)

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """All crops, the local ones as large as the others."""
        return super().shown(tuple(F.interpolate(view, size=views[0].shape[-2:]) for view in views))


def _or(own: float | None, other: float) -> float:
    return other if own is None else own


def lab(images: Tensor) -> Tensor:
    """Images `(n, 3, h, w)` of values from 0 to 1 in CIE Lab: lightness, from 0 to 100, and the colours a and b, 0 for
    grey."""
    return rgb_to_lab(images)


def rgb_from_lab(images: Tensor) -> Tensor:
    """The opposite of `lab`; colours that no screen can show become ones that it can."""
    return lab_to_rgb(images)
