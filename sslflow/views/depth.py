"""Views of images that carry along how far away everything is: depth maps meet the same crop and the same flip."""

from __future__ import annotations

import torch
from torch import Tensor

from sslflow.data.depth import FIELD, MISSING
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.settings.params import Fraction
from sslflow.views.colouring import Chances, Colouring
from sslflow.views.images import Views
from sslflow.views.placing import Placing
from sslflow.views.strengths import Blur, Colour, Crop


class DepthView(Views):
    """One view of each image with its depth map: a square crop and a flip of both; other colours of the image alone.

    Its tensors: normalised images `(n, c, s, s)`; depth `(n, 1, s, s)`, 0 where it isn't known; and what black and
    white are when normalised, `(n, 2, c, 1, 1)`, for pictures. Of depth each pixel has the value of the nearest one.
    What is seen twice as large is half as far away: depth is divided by how much the crop enlarges (arXiv:1406.2283).
    """

    def __init__(
        self,
        format: ImageFormat,
        *,
        crop: Crop = Crop(),
        flip: Fraction = 0.5,
        colour: Colour = Colour(),
        blur: Blur = Blur(p=0.0),
    ) -> None:
        """`flip`: probability of a horizontal flip."""
        super().__init__(format)
        self.placing = Placing(format.size, (crop.smallest, 1.0), flip, ratio=(1.0, 1.0))
        self.colouring = Colouring(format, colour, blur, [Chances(colour.jitter, colour.grey, blur.p, 0.0)])

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        """Raises `ValueError` for images without depth maps."""
        if FIELD not in fields:
            raise ValueError(MISSING)
        images = fields["images"].float() / 255
        places = self.placing.draw(len(images), *images.shape[2:], device=images.device)
        # Pixels' areas, not their middles, fill the view: so images and maps fit exactly.
        seen = self.normalise(self.colouring(places.shown(images, corners=False)) * 255)
        # Never blended: a mean of near and far is a place where nothing is.
        depth = places.nearest(fields[FIELD][:, 0])[:, None] * (places.height / places.side).view(-1, 1, 1, 1)
        ends = self.normalise(images.new_tensor([0.0, 255.0]).view(2, 1, 1, 1))
        return seen, depth, ends.expand(len(fields), *ends.shape)

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The image: a depth map is no second view that the encoder could see."""
        return super().shown(views[:1])


def drawn(logs: Tensor, known: Tensor, ends: Tensor) -> Tensor:
    """Pictures of log depth `(n, 1, h, w)`, normalised images `(n, c, h, w)`: white what is nearest in each map, dark
    what is farthest, black what isn't `known`, bool `(n, 1, h, w)`. `ends` as `DepthView` gives them."""
    far = logs.masked_fill(~known, -torch.inf).amax(dim=(2, 3), keepdim=True)
    near = logs.masked_fill(~known, torch.inf).amin(dim=(2, 3), keepdim=True)
    share = 0.1 + 0.9 * (far - logs) / (far - near).clamp_min(1e-6)
    black, white = ends.unbind(dim=1)
    return torch.lerp(black, white, torch.where(known, share, 0.0).clamp(0, 1))
