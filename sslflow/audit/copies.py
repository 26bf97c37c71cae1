"""Near duplicates: images that are one picture, saved again, moved a little, or made darker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.audit.neighbours import nearest
from sslflow.settings.params import Fraction

BLOCK = 256
"""Images that are compared with their candidates at a time."""
HASH, WAVES = 8, 6
"""Side of the few blurred pixels, and longest waves across and down, by which candidates are found."""
BY_PIXELS, BY_WAVES, BY_FEATURES = 12, 5, 5
"""Candidates of each image."""
USUAL = 8
"""Of those by pixels, the place of the one that is as like it as any other image of its kind is."""
CLOSER = 0.2
"""A copy differs by less than this share of what an image that is like it by chance does."""
EMPTY = 1.0
"""Standard deviation of blurred pixels, of 255 levels, below which nothing is to be compared."""
SAME = 5e-4
"""Difference below which two pictures are one, whatever the others are like."""


@torch.no_grad()
def near_copies(
    images: Tensor, groups: Tensor, features: Tensor, blank: Tensor, *, likeness: Fraction = 0.98
) -> list[tuple[int, int, float]]:
    """Pairs of places, the smaller first, and how alike they are, the most first: of small uint8 `(n, channels, side,
    side)`, none of the same of the `groups`, none of `blank` ones.

    Alike is the correlation of blurred pixels at the best of nine displacements by a pixel, which neither brightness,
    tint nor contrast changes. A pair is one of copies from `likeness` on, where its difference is also a fifth, or
    less, of that from each to the ninth nearest by pixels: images of one kind may all be alike, and are no copies.
    Candidates are the nearest by a few blurred pixels, by the strengths of their longest waves, which no displacement
    changes, and by `features` `(n, dim)`.
    """
    if len(images) < 2:
        return []
    waves = torch.cat([_waves(block) for block in images.split(BLOCK)])
    pixels = torch.cat([_pixels(block) for block in images.split(BLOCK)])
    _, by_pixels = nearest(pixels, groups, BY_PIXELS)
    _, by_waves = nearest(waves, groups, BY_WAVES)
    _, by_features = nearest(features, groups, BY_FEATURES)
    places = torch.cat([by_pixels, by_waves, by_features], dim=1)
    difference = 1 - _alike(images, places)
    own = torch.arange(len(images))[:, None].expand_as(places)
    allowed = (groups[own] != groups[places]) & ~blank[own] & ~blank[places]
    others = torch.where(allowed, difference, torch.inf)[:, : by_pixels.shape[1]].sort(dim=1).values
    usual = others[:, min(USUAL, others.shape[1] - 1)]
    usual = torch.where(usual.isfinite(), usual, 1.0)
    usual = torch.maximum(usual, usual[~blank].median() / 4) if (~blank).any() else usual  # where copies are many
    if len(images) <= USUAL:  # of which none need be another image
        usual = torch.ones_like(usual)
    limit = CLOSER * torch.minimum(usual[own], usual[places])
    found = allowed & ((difference <= 1 - likeness) & (difference <= limit) | (difference <= SAME))
    pairs: dict[tuple[int, int], float] = {}
    for a, b, far in zip(own[found].tolist(), places[found].tolist(), difference[found].tolist(), strict=True):
        pair = (min(a, b), max(a, b))
        pairs[pair] = max(pairs.get(pair, -1.0), 1 - far)
    return sorted(((*pair, alike) for pair, alike in pairs.items()), key=lambda one: (-one[2], one[:2]))


def _pixels(images: Tensor) -> Tensor:
    return _centred(F.adaptive_avg_pool2d(F.avg_pool2d(images.float(), 5, 1, 2), HASH))


def _waves(images: Tensor) -> Tensor:
    """Roots of the magnitudes of the lowest frequencies but the mean, centred, `(n, numbers)`."""
    found = torch.fft.rfft2(images.float())[..., :WAVES].abs().sqrt()
    found[..., 0, 0] = 0
    return _centred(torch.cat([found[..., :WAVES, :], found[..., 1 - WAVES :, :]], dim=-2))


def _centred(images: Tensor) -> Tensor:
    """Each image as a vector of mean zero and length one; of a blank one, of length zero."""
    flat = images.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def _alike(images: Tensor, places: Tensor) -> Tensor:
    """Best correlation of each image, less its border, with those in its `places` at nine displacements,
    `(n, candidates)`."""
    inner = images.shape[-1] - 2
    windows = [np.s_[..., down : down + inner, right : right + inner] for down in range(3) for right in range(3)]
    blurred = torch.cat([_blurred(block).half() for block in images.split(BLOCK)])
    lengths = torch.cat([_lengths(block.float(), windows) for block in blurred.split(BLOCK)])
    empty = lengths.amin(dim=1) < EMPTY * (inner * inner) ** 0.5
    best = []
    for start in range(0, len(images), BLOCK):
        here, own = places[start : start + BLOCK], blurred[start : start + BLOCK].float()
        # A vector of mean zero does not see the mean of what it is multiplied with.
        middle = own[..., 1:-1, 1:-1] - own[..., 1:-1, 1:-1].mean(dim=(2, 3), keepdim=True)
        middle = F.normalize(middle.flatten(1), dim=1).view(*own.shape[:2], inner, inner)
        moved = torch.zeros(len(own), len(windows), *own.shape[1:])
        for number, window in enumerate(windows):
            moved[:, number][window] = middle
        others = blurred[here.flatten()].float().view(*here.shape, -1)
        products = moved.flatten(2) @ others.transpose(1, 2)
        alike = products / lengths[here].transpose(1, 2)
        # Where nothing is within the border, or nearly nothing, there is nothing to compare.
        alike[empty[start : start + BLOCK]] = 0
        best.append(alike.masked_fill(empty[here][:, None], 0).amax(dim=1))
    return torch.cat(best).clamp_max(1.0)


def _lengths(images: Tensor, windows: Sequence[Any]) -> Tensor:
    """Of each image's windows as vectors, each channel less its mean: `(n, windows)`."""
    return torch.stack(
        [
            images[one].var(dim=(2, 3), correction=0).sum(dim=1).sqrt() * images[one][0, 0].numel() ** 0.5
            for one in windows
        ],
        dim=1,
    ).clamp_min(1e-6)


def _blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(images.float(), 3, 1, 1, count_include_pad=False)


def families(count: int, pairs: list[tuple[int, int, float]]) -> np.ndarray:
    """For each of `count` places the smallest one that pairs lead to, `(count,)` int64: its own without a copy."""
    first = np.arange(count)

    def root(place: int) -> int:
        while first[place] != place:
            first[place] = first[first[place]]
            place = int(first[place])
        return place

    for a, b, _ in pairs:
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return np.array([root(place) for place in range(count)], dtype=np.int64)
