"""Views of images that carry along where things are: masks and boxes meet the same crop and the same flip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.data.annotated import LEAST_LEFT
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.normalise import Normalise
from sslflow.settings.params import Fraction
from sslflow.views.colouring import Chances, Colouring
from sslflow.views.placing import Places, Placing
from sslflow.views.strengths import Blur, Colour, Share

NOTHING = 0.01
"""Pixels: of a box that is no wider or no higher after the crop, nothing is left."""


class PlacedView(nn.Module):
    """One view of each image with its mask and its boxes: a crop, a flip, other colours.

    A crop lies within the image, so nothing comes from outside of it; pixels that a mask ignores stay ignored. Of a
    mask each pixel has the value of the nearest one; what boxes hold are edges, not last pixels.
    """

    def __init__(
        self,
        format: ImageFormat,
        *,
        smallest: Share = 0.5,
        flip: Fraction = 0.5,
        colour: Colour = Colour(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, grey=0.0),
    ) -> None:
        """`smallest`: share of the image's area that a crop has at least; `flip`: probability of a horizontal flip."""
        super().__init__()
        self.normalise = Normalise(format.mean, format.std)
        self.placing = Placing(format.size, (smallest, 1.0), flip)
        self.colouring = Colouring(format, colour, Blur(), [Chances(colour.jitter, colour.grey, 0.0, 0.0)])

    @torch.no_grad()
    def forward(
        self, images: Tensor, masks: Tensor | None, boxes: Fields | None
    ) -> tuple[Tensor, Tensor | None, Fields | None]:
        """Normalised images `(n, c, s, s)`, masks uint8 `(n, s, s)` and boxes as `Truth.boxes` gives them, from uint8
        images `(n, c, s, s)`, such masks and such boxes; None stays None. Row i of each belongs to example i.

        Boxes are clipped. A thing of which less than `LEAST_LEFT` is left becomes `ignored`, and one of which nothing
        is left gets the label −1, as an empty place has it. All chance comes from torch's global generator, the same
        whether masks and boxes are given or not.
        """
        places = self.placing.draw(len(images), *images.shape[2:], device=images.device)
        # Pixels' areas, not their middles, fill the view: so images, masks and boxes fit exactly.
        shown = places.shown(images.float() / 255, corners=False)
        return (
            self.normalise(self.colouring(shown) * 255),
            None if masks is None else places.nearest(masks),
            None if boxes is None else _moved(boxes, places),
        )


def _moved(fields: Fields, places: Places) -> Fields:
    """Boxes as they are seen, clipped."""
    boxes, labels, ignored = fields["boxes"], fields["labels"], fields["ignored"]
    corners = places.moved(boxes.unflatten(2, (2, 2)).flatten(1, 2)).unflatten(1, (-1, 2))
    whole = torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=2)
    clipped = whole.clamp(0, places.side)
    left = _sides(clipped)
    gone = (labels < 0) | (left <= NOTHING).any(dim=2)
    little = left.prod(dim=2) < LEAST_LEFT * _sides(whole).prod(dim=2)
    return Fields(
        boxes=clipped.masked_fill(gone[..., None], 0.0),
        labels=labels.masked_fill(gone, -1),
        ignored=(ignored | little) & ~gone,
    )


def _sides(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] - boxes[..., :2]
