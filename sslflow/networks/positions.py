"""Where the patches of an image, or of a volume, are, as vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def positions(across: int, width: int, axes: int = 2) -> Tensor:
    """Where patches are, `(across ** axes, width)`: for each axis sines and cosines of the place along it, of
    wavelengths from 2π to 10,000 · 2π patches, as many for each; what is left of the width is 0."""
    pairs = width // (2 * axes)
    frequencies = 10_000.0 ** -(torch.arange(pairs) / pairs)
    angles = torch.arange(across)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    places = torch.cartesian_prod(*(torch.arange(across),) * axes)
    found = torch.cat([line[places[:, axis]] for axis in range(axes)], dim=1)
    return F.pad(found, (0, width - found.shape[1]))
