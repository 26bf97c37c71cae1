"""Views of images with captions: the image's own, and one of its captions, drawn by chance."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.tokens import PAD
from sslflow.settings.params import Fraction
from sslflow.views.images import TwoViews
from sslflow.views.strengths import Blur, Colour, Crop, Second

MULTIPLIER = 6364136223846793005
"""Of a sum over the tokens of a caption, modulo 2^64: Knuth's, of his MMIX."""


class CaptionedViews(TwoViews):
    """Two views of every image as `TwoViews` makes them; one of its captions, int64 `(n, length)`; and what tells
    captions apart, int64 `(n, 1 + per_image)`: a number of the caption that was drawn, then of each that the image has,
    0 for none.

    Nothing is mirrored, and no colour becomes another, unless it is asked for: captions tell left from right and red
    from blue.
    """

    def __init__(
        self,
        format: ImageFormat,
        *,
        crop: Crop = Crop(smallest=0.5),
        flip: Fraction = 0.0,
        colour: Colour = Colour(hue=0.0, grey=0.0),
        blur: Blur = Blur(),
        solarize: Fraction = 0.0,
        second: Second = Second(),
    ) -> None:
        """As for `TwoViews`; the `crop` is SLIP's of the image that a caption is of (arXiv:2112.12750)."""
        super().__init__(format, crop=crop, flip=flip, colour=colour, blur=blur, solarize=solarize, second=second)

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        """Both views, the caption, the numbers of captions."""
        drawn, numbers = drawn_captions(fields["captions"])
        return *super().forward(fields), drawn, numbers

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        return super().shown(views[:2])


class CaptionedView(CaptionedViews):
    """One view of every image, and one of its captions."""

    crops = 1

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        """The view and the caption, int64 `(n, length)`."""
        view, drawn, _ = super().forward(fields)
        return view, drawn

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        return super().shown(views[:1])


def drawn_captions(captions: Tensor) -> tuple[Tensor, Tensor]:
    """One of each image's captions, `(n, per_image, length)` with rows of padding where there are fewer: its tokens,
    int64 `(n, length)`, and the numbers of `CaptionedViews`."""
    captions = captions.long()
    there = captions[:, :, 0] != PAD
    chances = torch.rand(there.shape, device=captions.device).masked_fill(~there, -1.0)
    chosen = chances.argmax(dim=1)
    every = torch.arange(len(captions), device=captions.device)
    numbers = caption_numbers(captions)
    return captions[every, chosen], torch.cat([numbers[every, chosen][:, None], numbers], dim=1)


def caption_numbers(captions: Tensor) -> Tensor:
    """A number for each caption `(…, length)`, int64 `(…)`: the same for the same tokens, 0 for padding alone."""
    number = torch.zeros(captions.shape[:-1], dtype=torch.int64, device=captions.device)
    for place in range(captions.shape[-1]):
        number = number * MULTIPLIER + captions[..., place].long()
    return number
