"""Views: normalised, repeatable, different from one another, and different from image to image."""

from __future__ import annotations

import pytest
import torch

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.normalise import Normalise
from sslflow.views.images import CropView, TwoViews

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
