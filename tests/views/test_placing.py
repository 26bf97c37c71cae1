"""Crops and flips: drawn as Kornia draws them, and showing what Kornia shows of the same places."""

from __future__ import annotations

from typing import Any

import kornia.augmentation as K
import pytest
import torch
from kornia.augmentation.random_generator import ResizedCropGenerator
from scipy.stats import ks_2samp
from torch import Tensor

from sslflow.views.placing import RATIO, Places, Placing, shifted

MANY = 20000


def corners(places: Places) -> Tensor:
    """Left, top, width and height, `(n, 4)`."""
    return torch.stack([places.left, places.top, places.width, places.height], dim=1)


def kornias(source: Tensor, side: int) -> Places:
    """What Kornia drew, its corners `(n, 4, 2)`, as places."""
    left, top = source[:, 0].unbind(1)
    width, height = (source[:, 2] - source[:, 0] + 1).unbind(1)
    return Places(side, left, top, width, height, torch.zeros(len(source), dtype=torch.bool))


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.2, 1.0), RATIO),
        (224, 224, (0.05, 0.4), RATIO),
        (28, 28, (0.9, 1.0), (1.0, 1.0)),
        (20, 64, (0.9, 1.0), RATIO),
        (64, 20, (0.9, 1.0), RATIO),
        (8, 8, (1.0, 1.0), RATIO),
    ],
)
def test_places_are_distributed_as_kornias(height, width, scale, ratio):
    torch.manual_seed(0)
    ours = corners(Placing(16, scale, 0.5, ratio).draw(MANY, height, width))
    generator = ResizedCropGenerator((16, 16), scale=torch.tensor(scale), ratio=torch.tensor(ratio))
    generator.set_rng_device_and_dtype(torch.device("cpu"), torch.float32)
    theirs = corners(kornias(generator(torch.Size([MANY, 3, height, width]))["src"], 16))
    for power in (1, 2):
        a, b = ((one - theirs.mean(0)) ** power for one in (ours, theirs))
        error = ((a.var(0) + b.var(0)) / MANY).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() <= 4 * error + 1e-6).all()
    for one, other in zip(ours.T, theirs.T, strict=True):
        found: Any = ks_2samp(one.numpy(), other.numpy())
        assert found.pvalue > 1e-3
    assert torch.equal(ours.amin(0), theirs.amin(0)) or scale[0] < 0.1
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= width).all()
    assert (ours[:, 1] + ours[:, 3] <= height).all()


@pytest.mark.parametrize(("side", "scale"), [(24, (0.2, 1.0)), (10, (0.02, 0.4))])
@pytest.mark.parametrize("middles", [True, False])
def test_parts_are_shown_as_kornia_shows_them(side, scale, middles):
    torch.manual_seed(0)
    images = torch.rand(64, 3, 24, 24)
    crop = K.RandomResizedCrop((side, side), scale=scale, align_corners=middles)
    expected = crop(images)
    shown = kornias(crop._params["src"], side).shown(images, corners=middles)
    torch.testing.assert_close(shown, expected, atol=2e-5, rtol=0)


def test_of_maps_the_nearest_pixel_is_shown_and_nothing_is_blended():
    torch.manual_seed(0)
    maps = torch.randint(0, 256, (64, 24, 24), dtype=torch.uint8)
    crop = K.RandomResizedCrop((17, 17), scale=(0.2, 1.0), resample="nearest")
    expected = crop(maps[:, None].float())[:, 0]
    shown = kornias(crop._params["src"], 17).nearest(maps)
    assert shown.dtype == torch.uint8
    # A place between two pixels is as near to one as to the other.
    assert (shown == expected).float().mean() > 0.995


def test_every_view_shows_its_own_part_of_the_same_images():
    torch.manual_seed(0)
    images = torch.rand(5, 2, 12, 12)
    places = Placing(6, (0.2, 1.0), 0.5).draw(15, 12, 12)
    shown = places.shown(images, corners=True)
    torch.testing.assert_close(shown, places.shown(images.repeat(3, 1, 1, 1), corners=True), atol=0, rtol=0)
    assert len(shown.flatten(1).unique(dim=0)) == 15


@pytest.mark.parametrize("flip", [0.0, 0.3, 1.0])
def test_flips_are_as_many_as_asked_for_and_mirror_the_part(flip):
    torch.manual_seed(0)
    images = torch.rand(1, 1, 16, 16).expand(2000, -1, -1, -1)
    places = Placing(16, (1.0, 1.0), flip).draw(2000, 16, 16)
    assert float(places.flipped.float().mean()) == pytest.approx(flip, abs=0.03)
    shown = places.shown(images, corners=True)
    expected = torch.where(places.flipped.view(-1, 1, 1, 1), images.flip(3), images)
    torch.testing.assert_close(shown, expected, atol=1e-5, rtol=0)
    assert torch.equal(places.nearest(images[:, 0]), expected[:, 0])


def test_shifts_are_all_that_there_are_and_equally_likely():
    torch.manual_seed(0)
    image = torch.randperm(36).to(torch.uint8).view(1, 1, 6, 6)
    around = torch.nn.functional.pad(image.float(), (2,) * 4, mode="reflect").byte()
    ways = [around[..., y : y + 6, x : x + 6] for y in range(5) for x in range(5)]
    every = torch.cat([*ways, *(way.flip(3) for way in ways)]).flatten(1)
    moved = shifted(image.expand(10000, -1, -1, -1), 2, 0.5).flatten(1)
    same = (moved[:, None] == every).all(dim=2)
    assert same.any(dim=1).all()
    counts = same.float().sum(0)
    assert counts.min() > 130
    assert counts.max() < 270
