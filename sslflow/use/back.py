"""What was found in a prepared image, brought back to the picture that it was made of: as large, and upright."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.annotated import IGNORED
from sslflow.ingest.images.geometry import Placement, placement
from sslflow.use.images import Images

STRIP = 64 * 2**20
"""Bytes of enlarged logits that are in memory at a time, about."""


def boxes_back(boxes: np.ndarray, placed: Placement, width: int, height: int) -> np.ndarray:
    """Boxes `(k, 4)`, left, top, right, bottom, in pixels of a picture of that size, from those in its square; clipped,
    so that of one in the square's border alone nothing is left."""
    left, top, right, bottom = placed.part
    scale = np.asarray([(right - left) / placed.size[0], (bottom - top) / placed.size[1]] * 2)
    found = (boxes - np.asarray(placed.at * 2)) * scale + np.asarray([left, top] * 2)
    return found.clip(0, np.asarray([width, height] * 2))


def classes_back(logits: Tensor, placed: Placement, width: int, height: int) -> np.ndarray:
    """The class of each pixel of a picture, uint8 `(height, width)`, from logits `(classes, size, size)` of its square:
    the likeliest by bilinear interpolation; `IGNORED`, what the square doesn't show."""
    found = np.full((height, width), IGNORED, np.uint8)
    for rows, columns, values in _enlarged(logits, placed, width, height):
        found[rows, columns] = values.argmax(dim=0).cpu().numpy()
    return found


def depth_back(logs: Tensor, placed: Placement, width: int, height: int) -> np.ndarray:
    """How far away each pixel of a picture is, in metres, float32 `(height, width)`, from log depth `(1, size, size)`
    of its square, by bilinear interpolation; 0, what the square doesn't show."""
    found = np.zeros((height, width), np.float32)
    for rows, columns, values in _enlarged(logs, placed, width, height):
        found[rows, columns] = values[0].exp().cpu().numpy()
    return found


def _enlarged(maps: Tensor, placed: Placement, width: int, height: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Maps `(channels, size, size)` of a square by bilinear interpolation at the pixels of its picture, a strip at a
    time: which rows and columns of the picture these are, and the values, `(channels, rows, columns)`."""
    channels, size, _ = maps.shape
    x, columns = _seen(width, placed, 0)
    y, rows = _seen(height, placed, 1)
    across = torch.from_numpy(2 * x / size - 1).to(maps)
    parts = min(len(y), -(-4 * channels * len(y) * len(x) // STRIP))
    for some in np.array_split(np.arange(len(y)), parts):
        down = torch.from_numpy(2 * y[some] / size - 1).to(maps)
        places = torch.stack([across.expand(len(some), -1), down[:, None].expand(-1, len(x))], dim=2)
        values = F.grid_sample(maps[None], places[None], "bilinear", "border", align_corners=False)[0]
        yield slice(rows.start + int(some[0]), rows.start + int(some[-1]) + 1), columns, values


def cut_in_words(sizes: Sequence[tuple[int, int]], images: Images) -> str:
    """What squares don't show of pictures of these sizes, width and height, in words; empty, where that is nothing."""
    lost = [cut_away(placement(*size, images.side, images.fit), *size) for size in sizes]
    cut = [share for share in lost if share > 0]
    if not cut:
        return ""
    share = f"{100 * sum(cut) / len(cut):.0f} %"
    return (
        f"the model sees only the middle square of {len(cut)} of {len(sizes)} images: on average {share} of their area "
        "is cut away"
    )


def cut_away(placed: Placement, width: int, height: int) -> float:
    """Share of the picture that its square doesn't show."""
    left, top, right, bottom = placed.part
    return 1 - (right - left) * (bottom - top) / (width * height)


def _seen(length: int, placed: Placement, axis: int) -> tuple[np.ndarray, slice]:
    """Where in the square the middles of a picture's pixels lie, along one axis, and which pixels these are."""
    low, high = placed.part[axis], placed.part[axis + 2]
    middles = np.arange(length) + 0.5
    inside = np.flatnonzero((low <= middles) & (middles < high))
    places = placed.at[axis] + (middles[inside] - low) * placed.size[axis] / (high - low)
    # Beyond the middle of the last pixel the square's border begins to count.
    first, last = placed.at[axis] + 0.5, placed.at[axis] + placed.size[axis] - 0.5
    return places.clip(first, last), slice(int(inside[0]), int(inside[-1]) + 1)
