"""Colours: each change alone is Kornia's (hue apart), and they commute, so that one matrix holds them all."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from kornia.color import rgb_to_hsv
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
    solarize,
)
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torchvision.transforms import functional

from sslflow.data.formats import ImageFormat
from sslflow.views.colouring import TO_YIQ, Chances, Colouring, blurred, solarized
from sslflow.views.strengths import Blur, Colour

NOTHING = Colour(0.0, 0.0, 0.0, 0.0, jitter=1.0, grey=0.0)
NAMES = ("brightness", "contrast", "saturation", "hue")
ALONE = {
    "brightness": adjust_brightness_accumulative,
    "contrast": adjust_contrast_with_mean_subtraction,
    "saturation": adjust_saturation_with_gray_subtraction,
}


def changed(images: Tensor, colour: Colour, blur: Blur = Blur(p=0.0), solarize: float = 0.0) -> tuple[Tensor, Tensor]:
    """The images by `Colouring`, and what was drawn in [−1, 1) for the four strengths, `(4, n)`."""
    channels, side = images.shape[1], images.shape[3]
    format = ImageFormat(channels, side, (0.0,) * channels, (1.0,) * channels)
    colouring = Colouring(format, colour, blur, [Chances(colour.jitter, colour.grey, blur.p, solarize)])
    torch.manual_seed(0)
    lots = torch.rand(11, len(images))
    torch.manual_seed(0)
    return colouring(images), 2 * lots[4:8] - 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ALONE)
def test_one_change_alone_is_kornias(name, channels):
    images = torch.rand(64, channels, 9, 9, generator=torch.Generator().manual_seed(1))
    ours, drawn = changed(images, replace(NOTHING, **{name: 0.8}))
    expected = (
        ALONE[name](images, 1 + 0.8 * drawn[NAMES.index(name)]) if name != "saturation" or channels == 3 else images
    )
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)
    assert (name == "saturation" and channels != 3) or (
        (ours - images).abs().amax((1, 2, 3)) > 0.01
    ).float().mean() > 0.9


def test_grey_is_kornias_and_nothing_else_changes():
    images = torch.rand(400, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    ours, _ = changed(images, replace(NOTHING, jitter=0.0, grey=0.3))
    grey = (ours - ours.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-5
    assert float(grey.float().mean()) == pytest.approx(0.3, abs=0.08)
    luma = functional.rgb_to_grayscale(images, 3)
    expected = torch.where(grey.view(-1, 1, 1, 1), luma, images)
    # torchvision's weights have four digits, of which these lack the last.
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)


def test_changes_commute_where_nothing_is_cut_off():
    images = 0.4 + 0.2 * torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    ours, drawn = changed(images, Colour(0.3, 0.3, 0.3, 0.0, jitter=1.0, grey=0.0))
    for order in permutations(ALONE):
        expected = images
        for name in order:
            expected = ALONE[name](expected, 1 + 0.3 * drawn[NAMES.index(name)])
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)


def test_cutting_off_once_differs_little_from_after_every_change():
    """At the strengths of the recipes, on images that reach black and white."""
    images = torch.rand(200, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    ours, drawn = changed(images, replace(NOTHING, brightness=0.4, contrast=0.4, saturation=0.4))
    expected = images
    for name in ALONE:
        expected = ALONE[name](expected, 1 + 0.4 * drawn[NAMES.index(name)])
    assert (ours - expected).abs().mean() < 0.01
    assert ours.min() >= 0
    assert ours.max() <= 1


def test_hue_turns_towards_kornias_and_leaves_greys_and_brightness_alone():
    images = 0.3 + 0.4 * torch.rand(200, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    ours, drawn = changed(images, replace(NOTHING, hue=0.1))
    before, after = (torch.einsum("c,nchw->nhw", TO_YIQ[0].float(), one) for one in (images, ours))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    turned = (rgb_to_hsv(ours)[:, 0] - rgb_to_hsv(images)[:, 0] + torch.pi) % (2 * torch.pi) - torch.pi
    asked = 2 * torch.pi * 0.1 * drawn[3]
    assert torch.corrcoef(torch.stack([turned.median(2).values.median(1).values, asked]))[0, 1] > 0.99
    assert float((turned.mean((1, 2)) / asked).median()) == pytest.approx(1.0, abs=0.1)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(changed(grey, replace(NOTHING, hue=0.5))[0], grey, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "kernel"), [(9, 3), (40, 23)])
def test_blur_is_kornias_and_a_deviation_of_0_changes_nothing(side, kernel):
    torch.manual_seed(0)
    images, sigma = torch.rand(6, 3, side, side + 2), torch.tensor([0.0, 0.1, 0.5, 1.0, 2.0, 0.0])
    ours = blurred(images, torch.arange(kernel) - kernel // 2, sigma)
    theirs = gaussian_blur2d(images[1:5], (kernel, kernel), sigma[1:5, None].expand(-1, 2))
    torch.testing.assert_close(ours[1:5], theirs, atol=2e-6, rtol=0)
    assert torch.equal(ours[[0, 5]], images[[0, 5]])


def test_solarisation_is_kornias():
    torch.manual_seed(0)
    images, lots = torch.rand(50, 3, 9, 9), torch.rand(2, 50)
    happens = torch.arange(50) % 2 == 0
    ours = solarized(images, happens, lots)
    expected = solarize(images, 0.4 + 0.2 * lots[0], 0.2 * lots[1] - 0.1)
    torch.testing.assert_close(ours[happens], expected[happens], atol=1e-6, rtol=0)
    assert torch.equal(ours[~happens], images[~happens])


def test_deviations_of_blur_are_drawn_between_two():
    spot = torch.zeros(500, 1, 41, 41)
    spot[:, :, 20, 20] = 1.0
    ours, _ = changed(spot, replace(NOTHING, jitter=0.0), Blur(0.6, (0.6, 0.9)))
    at = torch.arange(41) - 20.0
    spread = (ours[:, 0].sum(1) * at.square()).sum(1)
    moved = spread > 0
    assert float(moved.float().mean()) == pytest.approx(0.6, abs=0.08)
    # A kernel of five pixels cuts a little off.
    assert spread[moved].sqrt().min() > 0.55
    assert spread[moved].sqrt().max() < 0.9
    assert float(spread[moved].sqrt().std()) > 0.05
