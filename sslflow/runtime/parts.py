"""Rows of features on the device that computes: held there up to a budget, above it brought over a part at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

HELD = 2**28
"""Bytes that are held on a CPU, at most: what is mapped from the disk may be larger than memory."""
SHARE = 0.5
"""Of a GPU's free memory, what may be held: the rest is for what is made of it."""
PART = 2**24
"""Bytes at a time, about, of what isn't held."""


def budget(device: torch.device) -> int:
    """Bytes that a table of features may take on the device."""
    if device.type != "cuda":
        return HELD
    # Memory that torch has taken and that no tensor is in is free as well.
    own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(SHARE * (torch.cuda.mem_get_info(device)[0] + own))


def fits(features: Tensor, device: torch.device, dtype: torch.dtype = torch.float32) -> bool:
    """Whether a table of that size and type may be held on the device."""
    return features.numel() * dtype.itemsize <= budget(device)


def held(features: Tensor, device: torch.device) -> Tensor:
    """The features on the device where they fit, else as they are."""
    return features.to(device) if fits(features, device, features.dtype) else features


def taken(features: Tensor, rows: slice | Tensor, device: torch.device) -> Tensor:
    """Some rows, by a slice or by number, on the device. A GPU doesn't wait for them before they are needed."""
    part = features[rows if isinstance(rows, slice) else rows.to(features.device)]
    if device.type == "cuda" and part.device.type == "cpu":
        return part.pin_memory().to(device, non_blocking=True)
    return part.to(device)


def parts(features: Tensor, device: torch.device, rows: int) -> Iterator[Tensor]:
    """All of them on the device, so many rows at a time; without any, one part that is empty."""
    for start in range(0, max(1, len(features)), rows):
        yield taken(features, slice(start, start + rows), device)


def at_a_time(width: int) -> int:
    """Rows to take at a time where `width` float32 numbers are made of each."""
    return max(1, PART // (width * torch.float32.itemsize))
