"""Colours: every change, and all of them in every order, is Kornia's to rounding; amounts are drawn as Kornia's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
    solarize,
)
from kornia.filters import gaussian_blur2d
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import functional

from sslflow.data.formats import ImageFormat
from sslflow.views.colouring import Chances, Colouring, blurred, saturated, solarized, turned
from sslflow.views.strengths import Blur, Colour

NOTHING = Colour(0.0, 0.0, 0.0, 0.0, jitter=1.0, grey=0.0)
NAMES = ("brightness", "contrast", "saturation", "hue")
ALONE = {
    "brightness": lambda images, amounts: adjust_brightness_accumulative(images, 1 + amounts),
    "contrast": lambda images, amounts: adjust_contrast_with_mean_subtraction(images, 1 + amounts),
    "saturation": lambda images, amounts: adjust_saturation_with_gray_subtraction(images, 1 + amounts),
    "hue": lambda images, amounts: adjust_hue(images, 2 * math.pi * amounts),
}
FORMAT = ImageFormat(3, 9, (0.0,) * 3, (1.0,) * 3)


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
    ours, drawn = changed(images, replace(NOTHING, **{name: 0.5}))
    happens = channels == 3 or name not in ("saturation", "hue")
    expected = ALONE[name](images, 0.5 * drawn[NAMES.index(name)]) if happens else images
    torch.testing.assert_close(ours, expected, atol=3e-6, rtol=0)
    assert ((ours - images).abs().amax((1, 2, 3)) > 0.01).float().mean() > 0.9 * happens - 0.1


def test_hue_is_kornias_for_all_pure_colours_and_leaves_greys_alone():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.3, 1.0])] * 3).T.view(1, 3, 1, 27)
    amounts = torch.linspace(-0.5, 0.5, 25)
    images = corners.expand(25, -1, -1, -1)
    ours = turned(images, amounts)
    torch.testing.assert_close(ours, ALONE["hue"](images, amounts), atol=3e-6, rtol=0)
    grey = images.amax(1) == images.amin(1)
    assert torch.equal(ours.transpose(1, 3)[grey.transpose(1, 2)], images.transpose(1, 3)[grey.transpose(1, 2)])


def test_grey_is_kornias_and_nothing_else_changes():
    images = torch.rand(400, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    ours, _ = changed(images, replace(NOTHING, jitter=0.0, grey=0.3))
    grey = (ours - ours.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-5
    assert float(grey.float().mean()) == pytest.approx(0.3, abs=0.08)
    luma = functional.rgb_to_grayscale(images, 3)
    expected = torch.where(grey.view(-1, 1, 1, 1), luma, images)
    # torchvision's weights have four digits, of which these lack the last.
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_all_changes_one_after_the_other_are_kornias_in_every_order(strength):
    """With Kornia's own layers and what these drew; images reach black and white, so much is cut off."""
    images = torch.rand(48, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    jitter, grey = K.ColorJitter(0.8, 0.8, 0.8, strength, p=0.7), K.RandomGrayscale(p=0.3)
    colouring, orders = Colouring(FORMAT, Colour(hue=strength), Blur(), [Chances(1, 0, 0, 0)]), set()
    for seed in range(60):
        torch.manual_seed(seed)
        expected = grey(jitter(images))
        drawn, order = jitter._params, jitter._params["order"].tolist()
        made, happens = images, drawn["batch_prob"].bool()
        for number in order:
            factors = drawn[f"{NAMES[number]}_factor"] - int(NAMES[number] != "hue")
            made = colouring.changes[number](made, torch.where(happens, factors, 0.0))
        made = saturated(made, -grey._params["batch_prob"])
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
        orders.add(tuple(order))
    assert len(orders) > 15


def drawn(count: int) -> tuple[Tensor, tuple[int, ...]]:
    """What `Colouring` tells its changes to do with the first of two views, then with the second, `(4, 2 * count)`, and
    in which order."""
    colouring = Colouring(FORMAT, Colour(1.0, 1.0, 1.0, 0.5), Blur(p=0.0), [Chances(0.8, 0.0, 0.0, 0.0)] * 2)
    seen: dict[int, Tensor] = {}

    def keep(number: int) -> Callable[[Tensor, Tensor], Tensor]:
        def change(images: Tensor, amounts: Tensor) -> Tensor:
            seen[number] = amounts
            return images

        return change

    colouring.changes = tuple(keep(number) for number in range(4))
    colouring(torch.zeros(2 * count, 3, 1, 1))
    return torch.stack([seen[number] for number in range(4)]), tuple(seen)


def test_amounts_are_drawn_as_kornias():
    """Each by Kolmogorov and Smirnov's test; and one tells nothing of another, nor of the other view, nor of the next
    step."""
    torch.manual_seed(0)
    (ours, _), (after, _) = drawn(10000), drawn(10000)
    jitter = K.ColorJitter(1.0, 1.0, 1.0, 0.5, p=0.8)
    jitter(torch.zeros(20000, 3, 1, 1))
    happens = ours[0] != 0
    assert torch.equal(happens.expand(4, -1), ours != 0)
    assert float(happens.float().mean()) == pytest.approx(0.8, abs=0.015)
    for name, amounts in zip(NAMES, ours, strict=True):
        theirs = jitter._params[f"{name}_factor"] - int(name != "hue")
        found: Any = ks_2samp(amounts[happens].numpy(), theirs.numpy())
        assert found.pvalue > 1e-3
    either = ours.chunk(2, dim=1)
    apart = np.corrcoef(torch.cat([*either, *after.chunk(2, dim=1)]).numpy()) - np.eye(16)
    assert np.abs(apart).max() < 0.045


def test_every_order_is_drawn():
    torch.manual_seed(0)
    orders = [drawn(1)[1] for _ in range(480)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24
    assert max(counts) < 45


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
