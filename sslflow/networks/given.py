"""What is known of weights that were not trained here, and how images are brought to what they expect."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Given:
    """Where weights come from that were not trained here, and what images must be to suit them."""

    weights: str
    sha256: str
    """Of the file, or where there is none of its tensors."""
    licence: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """By which their images are normalised, three channels, as shares of white."""
    data_mean: tuple[float, ...]
    data_std: tuple[float, ...]
    """By which the images that come in are normalised."""
    side: int
    """Pixels of the side that an image has for them."""

    @property
    def words(self) -> str:
        """In short: source, licence, hash and side."""
        return f"{self.weights}, {self.licence}, sha256 {self.sha256[:12]}…, images brought to {self.side} pixels"


class Brought(nn.Module):
    """Images as they are normalised here, `(n, 1 or 3, h, w)`, as given weights expect them, `(n, 3, …)`: in three
    channels, normalised otherwise, larger or smaller by `scale`."""

    def __init__(self, facts: Given, scale: float) -> None:
        super().__init__()
        mean, std, here, spread = (
            torch.tensor(part).view(1, -1, 1, 1) for part in (facts.mean, facts.std, facts.data_mean, facts.data_std)
        )
        self.scale = scale
        self.register_buffer("factor", spread / std, persistent=False)
        self.register_buffer("shift", (here - mean) / std, persistent=False)

    factor: Tensor
    shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        images = images * self.factor + self.shift
        if self.scale == 1:
            return images
        return F.interpolate(
            images, scale_factor=self.scale, mode="bilinear", antialias=self.scale < 1, recompute_scale_factor=True
        )
