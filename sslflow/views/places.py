"""Views of images that carry along where things are: masks and boxes meet the same crop and the same flip."""

from __future__ import annotations

import kornia.augmentation as K
import torch
from torch import Tensor, nn

from sslflow.data.annotated import LEAST_LEFT
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.normalise import Normalise
from sslflow.settings.params import Fraction
from sslflow.views.images import Blur, Colour, Share, colouring

NOTHING = 0.01
"""Pixels: of a box that is no wider or no higher after the crop, nothing is left."""


class PlacedView(nn.Module):
    """One view of each image with its mask and its boxes: a crop, a flip, other colours.

    A crop lies within the image, so nothing comes from outside of it; pixels that a mask ignores stay ignored. Kornia
    moves masks with their images. Boxes are moved by its matrices here, since Kornia 0.9 takes the last pixel of a box
    for its edge: when flipped they would be a pixel off, when enlarged too small.
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
        self.side = format.size
        # Pixels' areas, not their middles, fill the image: so the matrices fit both images and masks exactly.
        crop = K.RandomResizedCrop((format.size, format.size), scale=(smallest, 1.0), align_corners=False)
        self.place = K.AugmentationSequential(crop, K.RandomHorizontalFlip(p=flip), data_keys=None)
        self.colour = nn.Sequential(*colouring(format, colour, Blur(p=0.0), 0.0))

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
        given = {"input": images.float() / 255}
        if masks is not None:
            given["mask"] = masks[:, None].float()
        made, matrices = self.place(given), self.place.transform_matrix
        assert matrices is not None
        return (
            self.normalise(self.colour(made["input"]) * 255),
            None if masks is None else made["mask"][:, 0].to(torch.uint8),
            None if boxes is None else self._moved(boxes, matrices),
        )

    def _moved(self, fields: Fields, matrices: Tensor) -> Fields:
        """Boxes after the changes of places `(n, 3, 3)`, which are of the middles of pixels, numbered from 0."""
        boxes, labels, ignored = fields["boxes"], fields["labels"], fields["ignored"]
        matrices = matrices.to(boxes)
        corners = boxes.unflatten(2, (2, 2)).flatten(1, 2) - 0.5
        corners = corners @ matrices[:, :2, :2].mT + matrices[:, None, :2, 2] + 0.5
        corners = corners.unflatten(1, (-1, 2))
        whole = torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=2)
        clipped = whole.clamp(0, self.side)
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
