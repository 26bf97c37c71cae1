"""Views: normalised, repeatable, different from one another, and different from image to image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.transforms import functional

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.normalise import Normalise
from sslflow.views.images import CropView, MultiCrop, TwoViews

GREY = ImageFormat(1, 28, (0.3,), (0.3,))


@pytest.fixture
def images(fashion) -> torch.Tensor:
    return torch.from_numpy(fashion[0][:32])


@pytest.mark.parametrize("kind", [CropView, TwoViews])
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (4, 16)])
def test_views_have_the_images_shape_and_are_floats(kind, channels, size):
    images = torch.randint(0, 256, (6, channels, size, size), dtype=torch.uint8)
    views = kind(ImageFormat(channels, size, (0.5,) * channels, (0.25,) * channels))(Fields(images=images))
    assert all(view.shape == images.shape and view.dtype == torch.float32 for view in views)
    assert all(view.isfinite().all() for view in views)


def test_normalised_images_have_mean_0_and_deviation_1_and_come_back(images):
    scaled = images.float() / 255
    normalise = Normalise([float(scaled.mean())], [float(scaled.std())])
    normal = normalise(images)
    assert float(normal.mean()) == pytest.approx(0, abs=1e-4)
    assert float(normal.std()) == pytest.approx(1, abs=1e-4)
    assert torch.equal(normalise.restore(normal), images)


def test_a_set_of_one_colour_stays_finite():
    assert Normalise([0.5], [0.0])(torch.full((2, 1, 4, 4), 128, dtype=torch.uint8)).isfinite().all()


def test_the_same_seed_gives_the_same_views_and_another_gives_others(images):
    views = TwoViews(GREY)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack(views(Fields(images=images)))

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_the_two_views_of_an_image_differ_and_so_do_images_that_are_alike(images):
    torch.manual_seed(0)
    alike = images[:1].expand(16, -1, -1, -1)
    first, second = TwoViews(GREY)(Fields(images=alike))
    every = torch.cat([first, second]).flatten(1)
    assert len(torch.unique(every, dim=0)) == 32


COLOURLESS: Any = {"saturation": 0.0, "hue": 0.0, "grey": 0.0}
LIGHT: Any = {"smallest_crop": 1.0, "flip": 0.0, "blur": 0.0, **COLOURLESS}
RAW = ImageFormat(1, 8, (0.0,), (1.0,))
"""Of which views are in [0, 1]."""


def constant(value: int, count: int = 500) -> torch.Tensor:
    return torch.full((count, 1, 8, 8), value, dtype=torch.uint8)


@pytest.mark.parametrize("changed", ["brightness", "contrast"])
def test_strengths_are_those_by_which_an_image_of_one_grey_changes(changed):
    torch.manual_seed(0)
    strengths = {"brightness": 0.0, "contrast": 0.0, changed: 0.3}
    first, second = TwoViews(RAW, jitter=1.0, **LIGHT | strengths)(constant(102))
    seen = torch.cat([first, second])
    low, high = (0.7, 1.3) if changed == "brightness" else (1.0, 1.0)
    assert float(seen.min()) == pytest.approx(0.4 * low, abs=5e-3)
    assert float(seen.max()) == pytest.approx(0.4 * high, abs=5e-3)
    black = TwoViews(RAW, jitter=1.0, **LIGHT | strengths)(constant(0))
    assert not torch.cat(black).any()


def test_brightness_and_contrast_are_one_draw():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1000, 1, 8, 8), dtype=torch.uint8)
    first, _ = TwoViews(RAW, jitter=0.5, **LIGHT)(images)
    same = torch.isclose(first, images / 255, atol=1e-5).flatten(1).all(dim=1)
    assert float(same.float().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kind", [TwoViews, MultiCrop])
def test_grey_images_change_alike_in_one_channel_and_in_three(kind, images):
    grey, colour = (ImageFormat(c, 28, (0.3,) * c, (0.3,) * c) for c in (1, 3))
    torch.manual_seed(0)
    one = kind(grey)(images)
    torch.manual_seed(0)
    three = kind(colour, **COLOURLESS)(images.expand(-1, 3, -1, -1))
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(a.expand_as(b), b, atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_as_torchvision_changes_them(channels):
    torch.manual_seed(0)
    images = torch.rand(64, channels, 8, 8)
    jitter = TwoViews(ImageFormat(channels, 8, (0.0,) * channels, (1.0,) * channels), jitter=0.8).augment[2]
    changed = jitter(images)
    drawn: dict[str, torch.Tensor] = jitter._params  # pyright: ignore[reportAssignmentType]
    steps = [
        (functional.adjust_brightness, drawn["brightness_factor"]),
        (functional.adjust_contrast, drawn["contrast_factor"]),
        (functional.adjust_saturation, drawn["saturation_factor"]),
        (functional.adjust_hue, drawn["hue_factor"]),
    ]
    happened = drawn["batch_prob"].bool()
    assert happened.any()
    assert not happened.all()
    assert torch.equal(changed[~happened], images[~happened])
    for row in happened.nonzero()[:, 0].tolist():
        expected = images[row]
        for step in drawn["order"].tolist():
            change, factor = steps[step]
            expected = change(expected, float(factor[row]))
        torch.testing.assert_close(changed[row], expected, atol=2e-3, rtol=0)


def test_views_stay_within_the_range_of_images(images):
    views = TwoViews(ImageFormat(1, 28, (0.0,), (1 / 255,)))(Fields(images=images))
    assert min(float(view.min()) for view in views) >= 0
    assert max(float(view.max()) for view in views) <= 255.001


def test_without_settings_that_change_it_an_image_is_only_normalised(images):
    (view,) = CropView(GREY, shift=0.0, flip=0.0)(Fields(images=images))
    assert torch.equal(view, Normalise([0.3], [0.3])(images))


def test_a_flip_of_certainty_flips(images):
    (view,) = CropView(GREY, shift=0.0, flip=1.0)(Fields(images=images))
    assert torch.equal(view, Normalise([0.3], [0.3])(images).flip(3))
