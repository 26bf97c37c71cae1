"""Where the patches of an image are, as vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def positions(across: int, width: int) -> Tensor:
    """Where patches are, `(across², width)`: sines and cosines of their row in one half, of their column in the other,
    of wavelengths from 2π to 10,000 · 2π patches."""
    frequencies = 10_000.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(across)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = line.repeat_interleave(across, dim=0), line.repeat(across, 1)
    return torch.cat([rows, columns], dim=1)


def cube_positions(across: int, width: int) -> Tensor:
    """The same of the patches of a volume, `(across³, width)`: a third, of an even number, for each axis; what is left
    of the width is 0."""
    pairs = width // 6
    frequencies = 10_000.0 ** -(torch.arange(pairs) / pairs)
    angles = torch.arange(across)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    places = torch.cartesian_prod(*(torch.arange(across),) * 3)
    found = torch.cat([line[places[:, axis]] for axis in range(3)], dim=1)
    return F.pad(found, (0, width - found.shape[1]))
