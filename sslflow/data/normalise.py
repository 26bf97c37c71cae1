"""uint8 images and volumes to floats of mean 0 and spread 1, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """uint8 `(n, c, h, w)` or `(n, c, d, h, w)` to float with mean 0 and standard deviation 1 over the data
    set, channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        # An image set of one colour has no spread to divide by.
        self.register_buffer("std", (torch.tensor(std).view(1, -1, 1, 1) * 255).clamp_min(1.0), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = self._along(images)
        return (images.float() - mean).div_(std)

    def restore(self, views: Tensor) -> Tensor:
        """The uint8 images that normalise to `views`, as closely as uint8 allows."""
        mean, std = self._along(views)
        return (views * std + mean).round().clamp(0, 255).to(torch.uint8)

    def _along(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, *(1,) * (images.ndim - 2))
        return self.mean.view(shape), self.std.view(shape)
