"""Views: normalised, repeatable, different from one another, and different from image to image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kornia.augmentation as K
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.normalise import Normalise
from sslflow.settings.params import Over, ParamsError, read
from sslflow.views.images import CropView, MultiCrop, TwoViews
from sslflow.views.strengths import Blur, Colour, Crop, Local, Second

GREY = ImageFormat(1, 28, (0.3,), (0.3,))


@pytest.fixture
def images(fashion) -> torch.Tensor:
    return torch.from_numpy(fashion[0][:32])


def test_a_shift_by_the_whole_side_is_refused() -> None:
    with pytest.raises(ValueError, match=r"views.shift 1 moves images by their whole side: set it to less"):
        CropView(GREY, shift=1.0)


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


COLOURLESS = Colour(saturation=0.0, hue=0.0, grey=0.0)
WHOLE: Any = {"crop": Crop(1.0), "flip": 0.0, "blur": Blur(p=0.0)}
RAW = ImageFormat(1, 8, (0.0,), (1.0,))
"""Of which views are in [0, 1]."""


def constant(value: int, count: int = 500) -> Fields:
    return Fields(images=torch.full((count, 1, 8, 8), value, dtype=torch.uint8))


@pytest.mark.parametrize("changed", ["brightness", "contrast"])
def test_strengths_are_those_by_which_an_image_of_one_grey_changes(changed):
    torch.manual_seed(0)
    colour = replace(COLOURLESS, jitter=1.0, **{"brightness": 0.0, "contrast": 0.0, changed: 0.3})
    first, second = TwoViews(RAW, colour=colour, **WHOLE)(constant(102))
    seen = torch.cat([first, second])
    low, high = (0.7, 1.3) if changed == "brightness" else (1.0, 1.0)
    assert float(seen.min()) == pytest.approx(0.4 * low, abs=5e-3)
    assert float(seen.max()) == pytest.approx(0.4 * high, abs=5e-3)
    black = TwoViews(RAW, colour=colour, **WHOLE)(constant(0))
    assert not torch.cat(black).any()


def test_brightness_and_contrast_are_one_draw():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1000, 1, 8, 8), dtype=torch.uint8)
    first, _ = TwoViews(RAW, colour=replace(COLOURLESS, jitter=0.5), **WHOLE)(Fields(images=images))
    same = torch.isclose(first, images / 255, atol=1e-5).flatten(1).all(dim=1)
    assert float(same.float().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kind", [TwoViews, MultiCrop])
def test_grey_images_change_alike_in_one_channel_and_in_three(kind, images):
    grey, colour = (ImageFormat(c, 28, (0.3,) * c, (0.3,) * c) for c in (1, 3))
    torch.manual_seed(0)
    one = kind(grey)(Fields(images=images))
    torch.manual_seed(0)
    three = kind(colour, colour=COLOURLESS)(Fields(images=images.expand(-1, 3, -1, -1)))
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(a.expand_as(b), b, atol=1e-4, rtol=0)


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


# Two views that differ


COLOUR = ImageFormat(3, 28, (0.3, 0.4, 0.5), (0.3, 0.2, 0.1))
NOISE = torch.randint(0, 256, (400, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PLAIN = ImageFormat(3, 8, (0.0,) * 3, (1.0,) * 3)
STILL = Colour(jitter=0.0, grey=0.0)


def untouched(view: torch.Tensor) -> float:
    """The share of the views that are their images."""
    return float(torch.isclose(view, NOISE / 255, atol=1e-5).flatten(1).all(dim=1).float().mean())


KORNIAS = (
    K.ColorJitter(0.3, 0.2, 0.4, 0.1, p=0.7),
    K.RandomGrayscale(p=0.2),
    K.RandomGaussianBlur((3, 3), (0.2, 1.5), p=0.4),
    K.RandomSolarize(p=0.3),
)
OURS: Any = {
    "crop": Crop(0.3),
    "flip": 0.4,
    "colour": Colour(0.3, 0.2, 0.4, 0.1, jitter=0.7),
    "blur": Blur(0.4, (0.2, 1.5)),
    "solarize": 0.3,
}


def told(views: torch.Tensor) -> torch.Tensor:
    """What can be counted of each of the views `(n, 3, h, w)` in [0, 1]: `(n, 7)`."""
    grey, left = views.mean(1), views[..., : views.shape[3] // 2]
    return torch.stack(
        [
            grey.mean((1, 2)),
            views.std((1, 2, 3)),
            (views - grey[:, None]).abs().mean((1, 2, 3)),
            views.amax((1, 2, 3)),
            views.amin((1, 2, 3)),
            grey.diff(dim=2).abs().mean((1, 2)),
            left.mean((1, 2, 3)),
        ],
        dim=1,
    )


def test_views_are_distributed_as_kornias():
    """Means and deviations of what can be counted, within four standard errors; over several batches, each of which has
    an order of the changes of its own, as Kornia's."""
    coarse = torch.rand(1500, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images = (255 * nn.functional.interpolate(coarse, size=28, mode="bilinear")).round()
    format = ImageFormat(3, 28, (0.0,) * 3, (1.0,) * 3)
    torch.manual_seed(0)
    crops = MultiCrop(format, **OURS, local=Local(2, 0.5, (0.1, 0.3)))
    parts = images.split(50)
    *large, small, _ = map(torch.cat, zip(*(crops(Fields(images=part.byte())) for part in parts), strict=True))
    for seen, side, scale in ((torch.cat(large), 28, (0.3, 1.0)), (small, 14, (0.1, 0.3))):
        kornias = nn.Sequential(K.RandomResizedCrop((side, side), scale=scale), K.RandomHorizontalFlip(p=0.4), *KORNIAS)
        ours, theirs = told(seen), told(torch.cat([kornias(part / 255) for part in parts]))
        for power in (1, 2):
            a, b = ((one - theirs.mean(0)) ** power for one in (ours, theirs))
            error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
            assert ((a.mean(0) - b.mean(0)).abs() < 4 * error + 2e-3).all()


def test_views_are_made_without_a_look_at_their_values(monkeypatch):
    """So that a GPU never has to be waited for. The order of changes is drawn on the host."""
    monkeypatch.setattr("sslflow.views.colouring.drawn_order", lambda count: list(range(count)))
    kinds = [CropView(COLOUR), TwoViews(COLOUR, **OURS), MultiCrop(COLOUR, **OURS)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        for kind in kinds:
            images = torch.empty(6, 3, 28, 28, dtype=torch.uint8)
            assert all(view.shape[:2] == (6, 3) for view in kind(Fields(images=images)))


@pytest.mark.parametrize("kind", [TwoViews, MultiCrop])
def test_the_second_view_may_be_blurred_less_often(kind):
    torch.manual_seed(0)
    settings: Any = {**WHOLE, "colour": STILL, "blur": Blur(1.0, (1.0, 2.0)), "second": Second(blur=0.1)}
    first, second, *_ = kind(PLAIN, **settings)(Fields(images=NOISE))
    assert untouched(first) == 0
    assert untouched(second) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(("solarize", "second"), [(0.0, Second(solarize=1.0)), (1.0, Second(solarize=0.0))])
def test_one_view_alone_may_be_solarized(solarize, second):
    torch.manual_seed(0)
    bright = Fields(images=torch.full((50, 3, 8, 8), 204, dtype=torch.uint8))
    views = TwoViews(PLAIN, colour=STILL, solarize=solarize, second=second, **WHOLE)(bright)
    dark, light = views if solarize else views[::-1]
    torch.testing.assert_close(light, torch.full_like(light, 0.8))
    assert float(dark.max()) < 0.35


@pytest.mark.parametrize("changed", ["jitter", "grey"])
def test_the_second_view_may_keep_its_colours(changed):
    torch.manual_seed(0)
    colour, second = replace(STILL, **{changed: 1.0}), Second(**{changed: 0.0})
    first, second = TwoViews(PLAIN, colour=colour, second=second, **WHOLE)(Fields(images=NOISE))
    assert (untouched(first), untouched(second)) == (0, 1)


def test_local_crops_may_be_blurred_more_often_than_global_ones():
    torch.manual_seed(0)
    local = Local(crops=2, size=1.0, scale=(1.0, 1.0), blur=1.0)
    settings: Any = {**WHOLE, "colour": STILL, "blur": Blur(0.0, (1.0, 2.0))}
    views = MultiCrop(PLAIN, local=local, **settings)(Fields(images=NOISE))
    assert [untouched(view) for view in views] == [1, 1, 0, 0]
    alike = MultiCrop(PLAIN, local=replace(local, blur=None), **settings)(Fields(images=NOISE))
    assert [untouched(view) for view in alike] == [1] * 4


def test_what_differs_is_read_from_the_settings(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(
        "views: {blur: {p: 0.5}, second: {solarize: 0.2}}\n"
        "methods: {byol: {views: {blur: {p: 1.0}, second: {blur: 0.1, jitter: null}}}}"
    )
    found = read({"methods.byol.views": Over("views", TwoViews)}, file)["methods.byol.views"]
    assert found == {"blur": Blur(p=1.0), "second": Second(blur=0.1, solarize=0.2)}
    file.write_text("views: {second: {blur: 1.5}}")
    with pytest.raises(ParamsError, match=r"views\.second\.blur: should be less than or equal to 1, found 1\.5"):
        read({"methods.byol.views": Over("views", TwoViews)}, file)
