"""Colours of frames changed by one matrix: what each strength does, against the definition."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sslflow.audiovisual.colours import Colours
from sslflow.views.strengths import Colour

NOTHING = Colour(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, jitter=1.0, grey=0.0)
LUMA = torch.tensor([0.299, 0.587, 0.114])


def frames(count: int = 32) -> torch.Tensor:
    """Away from 0 and 1, so that nothing is clipped."""
    return 0.4 + 0.2 * torch.rand(count, 3, 4, 5)


def brightness_of(pictures: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nchw,c->nhw", pictures, LUMA)


def test_without_strengths_nothing_changes():
    shown = frames()
    torch.testing.assert_close(Colours(NOTHING)(shown), shown, atol=1e-5, rtol=0)
    strong = Colours(Colour(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5, jitter=0.0, grey=0.0))
    torch.testing.assert_close(strong(shown), shown, atol=1e-5, rtol=0)


def test_brightness_moves_all_pixels_of_a_frame_alike():
    shown = frames()
    moved = Colours(replace(NOTHING, brightness=0.3))(shown) - shown
    each = moved.mean((1, 2, 3))
    torch.testing.assert_close(moved, each[:, None, None, None].expand_as(moved), atol=1e-5, rtol=0)
    assert each.abs().max() <= 0.3
    assert each.std() > 0.1


def test_contrast_is_about_mid_grey():
    shown = frames()
    changed = Colours(replace(NOTHING, contrast=0.5))(shown) - 0.5
    factor = (changed * (shown - 0.5)).sum((1, 2, 3)) / (shown - 0.5).square().sum((1, 2, 3))
    torch.testing.assert_close(changed, factor[:, None, None, None] * (shown - 0.5), atol=1e-5, rtol=0)
    assert 0.5 <= factor.min() < 0.8
    assert 1.2 < factor.max() <= 1.5


@pytest.mark.parametrize("what", ["saturation", "hue"])
def test_saturation_and_hue_leave_brightness_and_greys_alone(what):
    shown, colours = frames(), Colours(replace(NOTHING, **{what: 0.4}))
    changed = colours(shown)
    assert (changed - shown).abs().amax() > 0.01
    torch.testing.assert_close(brightness_of(changed), brightness_of(shown), atol=1e-5, rtol=0)
    grey = shown[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(colours(grey), grey, atol=1e-5, rtol=0)


def test_hue_turns_by_the_angle():
    torch.manual_seed(0)
    colours, shown = Colours(replace(NOTHING, hue=0.25)), frames(1)
    yiq = torch.einsum("ij,njhw->nihw", colours.to_yiq, shown)
    torch.manual_seed(1)
    turned = torch.einsum("ij,njhw->nihw", colours.to_yiq, colours(shown))
    torch.manual_seed(1)
    angle = 2 * math.pi * 0.25 * float((2 * torch.rand(4, 1) - 1)[3])
    before, after = (torch.atan2(one[:, 2], one[:, 1]) for one in (yiq, turned))
    apart = (after - before - angle + math.pi) % (2 * math.pi) - math.pi
    assert apart.abs().max() < 1e-3
    torch.testing.assert_close(turned[:, 1:].norm(dim=1), yiq[:, 1:].norm(dim=1), atol=1e-4, rtol=0)


def test_a_share_of_the_frames_is_grey_and_a_share_is_changed():
    torch.manual_seed(0)
    shown = frames(4000)
    grey = Colours(replace(NOTHING, grey=0.3))(shown)
    assert ((grey - grey.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-4).float().mean() == pytest.approx(
        0.3, abs=0.04
    )
    changed = Colours(replace(NOTHING, hue=0.5, jitter=0.6))(shown)
    assert ((changed - shown).abs().amax((1, 2, 3)) > 1e-4).float().mean() == pytest.approx(0.6, abs=0.04)


def test_what_comes_out_is_a_picture():
    changed = Colours(Colour(brightness=0.9, contrast=0.9, saturation=0.9, hue=0.5, jitter=1.0, grey=0.1))(
        torch.rand(64, 3, 8, 8)
    )
    assert changed.min() == 0
    assert changed.max() == 1
