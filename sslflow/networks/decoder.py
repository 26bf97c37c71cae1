"""From what an encoder makes, its maps or features, back to images."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn


class Decoder(nn.Module):
    """Maps `(n, dim, h, w)` of any size, 1x1 too, to `(n, channels, side, side)`: 3x3 convolutions, the size doubled
    before each until it is `side`; the last layer is bare.

    Pixels are repeated, not spread by a transposed convolution: no chequerboard, and the same sums in the same order
    on every device. `width` is that of the first layers; the last two have a half and a quarter of it, but not fewer
    than 16, since nearly all of the arithmetic is where the image is large. `smallest` is the largest size that the
    first layer may work at: maps that are known to be as large need no layers below.
    """

    def __init__(self, dim: int, channels: int, side: int, *, width: int = 64, smallest: int = 2) -> None:
        super().__init__()
        # Halved from the end, as an encoder's strides halve: 2, 4, 7, 14, 28.
        self.sizes = [side]
        while self.sizes[0] > smallest:
            self.sizes.insert(0, -(-self.sizes[0] // 2))
        widths = [max(min(width, 16), width // max(1, 4 >> left)) for left in reversed(range(len(self.sizes)))]
        self.narrow = nn.Conv2d(dim, widths[0], 1)
        self.blocks = nn.ModuleList(_block(*pair) for pair in itertools.pairwise([widths[0], *widths]))
        self.last = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Images, of unbounded values."""
        x = self.narrow(maps)
        for size, block in zip(self.sizes, self.blocks, strict=True):
            # A map that is larger than a step's size keeps its own, so that every layer is used whatever the encoder.
            wanted = [min(max(size, present), self.sizes[-1]) for present in x.shape[-2:]]
            x = block(F.interpolate(x, size=wanted, mode="nearest"))
        return self.last(x)


def from_features(dim: int, channels: int, side: int, *, width: int = 64) -> nn.Sequential:
    """Features `(n, dim)` to images `(n, channels, side, side)`: one layer makes maps of at most 8x8, and a decoder
    takes it from there. The larger these maps, the fewer steps it takes to learn to draw."""
    decoder = Decoder(width, channels, side, width=width, smallest=8)
    across = decoder.sizes[0]
    return nn.Sequential(
        nn.Linear(dim, width * across**2, bias=False),
        nn.BatchNorm1d(width * across**2),
        nn.ReLU(inplace=True),
        nn.Unflatten(1, (width, across, across)),
        decoder,
    )


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
