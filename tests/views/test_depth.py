"""Depth maps meet the crop and the flip of their image, and no other change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.views.depth import DepthView, drawn
from sslflow.views.strengths import Colour, Crop

SIDE = 32
FORMAT = ImageFormat(3, SIDE, (0.0,) * 3, (1.0,) * 3)
PLAIN = Colour(jitter=0.0, grey=0.0)


def places(count: int = 64) -> Fields:
    """Images whose first two channels are a pixel's column and row, times four, and depth that is 1 + both / 100."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    image = torch.stack([4 * columns, 4 * rows, torch.zeros_like(rows)]).to(torch.uint8)
    depth = 1.0 + columns / 100 + rows / 10
    return Fields(images=image.repeat(count, 1, 1, 1), depth=depth.repeat(count, 1, 1, 1))


def seen(fields: Fields, **settings) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    images, maps, _ = DepthView(FORMAT, **{"colour": PLAIN, **settings})(fields)
    return images * 255 / 4, maps


def test_whole_images_come_through_as_they_are() -> None:
    fields = places(4)
    images, maps = seen(fields, crop=Crop(1.0), flip=0.0)
    assert torch.allclose(images[:, :2] * 4, fields["images"][:, :2].float(), atol=1e-3)
    assert torch.equal(maps, fields["depth"])


def test_each_pixel_has_the_depth_of_the_place_that_it_shows() -> None:
    """To within the half pixel that lies between the nearest one and the place; and what is enlarged is nearer."""
    images, maps = seen(places(), crop=Crop(0.2), flip=0.5)
    columns, rows = images[:, 0, 4:-4, 4:-4], images[:, 1, 4:-4, 4:-4]
    step = rows.diff(dim=1).mean(dim=(1, 2)).abs()
    assert step.min() < 0.6
    assert step.max() <= 1.001
    true = (1 + columns / 100 + rows / 10) * step.view(-1, 1, 1)
    off = (maps[:, 0, 4:-4, 4:-4] - true).abs() / step.view(-1, 1, 1)
    assert off.max() <= 0.5 * (1 / 100 + 1 / 10) + 0.02
    flipped = columns.diff(dim=2).mean(dim=(1, 2)) < 0
    assert 0.2 < flipped.float().mean() < 0.8


def test_depth_is_never_blended_and_what_is_not_known_stays_so() -> None:
    fields = places()
    depth = torch.where(torch.rand(fields["depth"].shape) < 0.5, 8.0, 0.0)
    depth[:, :, :, : SIDE // 2] = 2.0
    _, maps = seen(Fields(images=fields["images"], depth=depth), crop=Crop(0.3))
    for one in maps:
        assert len(one.unique()) <= 3
        near, far = (one[one > 0].min(), one.max())
        assert far == pytest.approx(float(near)) or float(far / near) == pytest.approx(4.0, rel=1e-5)


def test_colours_change_and_depth_does_not() -> None:
    fields = places(8)
    strong = Colour(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.3, jitter=1.0, grey=0.0)
    plain = seen(fields, crop=Crop(1.0), flip=0.0)
    images, maps = seen(fields, crop=Crop(1.0), flip=0.0, colour=strong)
    assert torch.equal(maps, plain[1])
    assert (images - plain[0]).abs().mean() > 1


def test_without_depth_maps_it_says_so() -> None:
    with pytest.raises(ValueError, match=r"no depth maps beside these images: name them in data\.depth"):
        DepthView(FORMAT)(Fields(images=places(2)["images"]))


def test_pictures_are_white_where_near_and_black_where_nothing_is_known() -> None:
    logs = torch.tensor([[0.0, 1.0], [2.0, 9.0]]).view(1, 1, 2, 2)
    known = torch.tensor([[True, True], [True, False]]).view(1, 1, 2, 2)
    ends = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1, 1)
    torch.testing.assert_close(
        drawn(logs, known, ends).flatten(), torch.tensor([1.0, 0.1, -0.8, -1.0]), atol=1e-6, rtol=1e-5
    )
