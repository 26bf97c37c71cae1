"""Images, masks and boxes meet the same crop and the same flip, each image its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sslflow.data.annotated import IGNORED
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.views.places import PlacedView
from sslflow.views.strengths import Colour

SIDE, MANY = 32, 200
STILL = Colour(jitter=0.0, grey=0.0)


def format_of(channels: int = 3, side: int = SIDE) -> ImageFormat:
    return ImageFormat(channels, side, (0.0,) * channels, (1.0,) * channels)


def things(boxes: Tensor, labels: Tensor | None = None) -> Fields:
    n, most = boxes.shape[:2]
    labels = torch.zeros(n, most, dtype=torch.int64) if labels is None else labels
    return Fields(boxes=boxes.float(), labels=labels, ignored=torch.zeros(n, most, dtype=torch.bool))


def drawn(view: PlacedView, images: Tensor, masks: Tensor | None, boxes: Fields | None, seed: int = 0):
    torch.manual_seed(seed)
    return view(images, masks, boxes)


@pytest.fixture(scope="module")
def corners() -> Tensor:
    """Left and top, right and bottom of boxes `(MANY, 2, 4)` of whole pixels, anywhere."""
    generator = torch.Generator().manual_seed(1)
    low = torch.randint(0, SIDE - 2, (MANY, 2, 2), generator=generator)
    high = torch.minimum(low + torch.randint(1, 12, (MANY, 2, 2), generator=generator), torch.tensor(SIDE))
    return torch.cat([low, high], dim=2)


def painted(corners: Tensor) -> Tensor:
    """Masks: 1 in the first box of each image."""
    masks = torch.zeros(MANY, SIDE, SIDE, dtype=torch.uint8)
    for i, (left, top, right, bottom) in enumerate(corners[:, 0].tolist()):
        masks[i, top:bottom, left:right] = 1
    return masks


def test_a_bright_pixel_its_mask_and_its_box_land_together():
    places = torch.randint(3, SIDE - 3, (MANY, 2), generator=torch.Generator().manual_seed(2))
    x, y = places.unbind(1)
    images, masks = torch.zeros(MANY, 1, SIDE, SIDE), torch.zeros(MANY, SIDE, SIDE, dtype=torch.uint8)
    images[torch.arange(MANY), 0, y, x], masks[torch.arange(MANY), y, x] = 255, 1
    boxes = things(torch.cat([places, places + 1], dim=1)[:, None])
    bright, marked, moved = drawn(PlacedView(format_of(1), colour=STILL), images.byte(), masks, boxes)
    left, top, right, bottom = moved["boxes"][:, 0].unbind(1)
    # The light of a pixel at the border is cut off, and its middle isn't the pixel's.
    whole = (moved["labels"][:, 0] == 0) & (torch.stack([left, top, SIDE - right, SIDE - bottom]) > 2).all(dim=0)
    assert 80 < whole.sum() < MANY
    for pixels in (bright[:, 0], marked.float()):
        assert (pixels.flatten(1).sum(1)[whole] > 0).all()
        across = (pixels.sum(1) @ (torch.arange(SIDE) + 0.5)) / pixels.sum((1, 2))
        down = (pixels.sum(2) @ (torch.arange(SIDE) + 0.5)) / pixels.sum((1, 2))
        apart = torch.stack([across - (left + right) / 2, down - (top + bottom) / 2])[:, whole]
        assert apart.abs().max() <= 0.5 + 1e-4
        assert apart.mean(1).abs().max() < 0.1


def test_boxes_end_where_their_pixels_end(corners):
    _, masks, moved = drawn(
        PlacedView(format_of()), torch.zeros(MANY, 3, SIDE, SIDE).byte(), painted(corners), things(corners)
    )
    apart = []
    for mask, box, label in zip(masks, moved["boxes"][:, 0], moved["labels"][:, 0], strict=True):
        assert bool(label < 0) == (not mask.any()) or (box[2:] - box[:2]).min() < 0.5
        if mask.any():
            y, x = torch.where(mask == 1)
            apart.append(box - torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]))
    assert len(apart) > MANY / 2
    assert torch.stack(apart).abs().max() <= 0.5 + 1e-4
    assert torch.stack(apart).mean(0).abs().max() < 0.1


def test_boxes_are_clipped_ignored_and_removed_by_what_is_left_of_them(corners):
    """Masks that number columns and rows tell which part of an image a crop shows: it is never made smaller."""
    images, view = torch.zeros(MANY, 3, SIDE, SIDE).byte(), PlacedView(format_of(), smallest=0.3)
    numbers = torch.arange(SIDE, dtype=torch.uint8)
    columns = drawn(view, images, numbers.expand(MANY, SIDE, SIDE).clone(), None)[1][:, 0].long()
    rows = drawn(view, images, numbers[:, None].expand(MANY, SIDE, SIDE).clone(), None)[1][:, :, 0].long()
    flipped = columns[:, 0] > columns[:, -1]
    assert 0 < flipped.sum() < MANY
    moved = drawn(view, images, None, things(corners))[2]
    seen = {"whole": 0, "ignored": 0, "gone": 0}
    for i in range(MANY):
        x0, x1, y0, y1 = (int(value) for one in (columns[i], rows[i]) for value in (one.min(), one.max() + 1))
        for k, (left, top, right, bottom) in enumerate(corners[i].tolist()):
            shown = (max(left, x0), max(top, y0), min(right, x1), min(bottom, y1))
            width, height = max(0, shown[2] - shown[0]), max(0, shown[3] - shown[1])
            label, ignored, box = moved["labels"][i, k], moved["ignored"][i, k], moved["boxes"][i, k]
            if not width * height:
                assert (label, ignored, box.any()) == (-1, False, False)
                seen["gone"] += 1
                continue
            little = width * height < (right - left) * (bottom - top) / 4
            assert label == 0
            assert ignored == little or 4 * width * height == (right - left) * (bottom - top)
            seen["ignored" if little else "whole"] += 1
            across, down = SIDE / (x1 - x0), SIDE / (y1 - y0)
            sides = [(shown[0] - x0) * across, (shown[2] - x0) * across]
            if flipped[i]:
                sides = [SIDE - sides[1], SIDE - sides[0]]
            expected = torch.tensor([sides[0], (shown[1] - y0) * down, sides[1], (shown[3] - y0) * down])
            torch.testing.assert_close(box, expected, atol=1e-3, rtol=0)
    assert min(seen.values()) > 5, seen


def test_a_flip_alone_turns_all_three_exactly(corners):
    images = torch.randint(0, 256, (MANY, 3, SIDE, SIDE)).byte()
    masks = torch.randint(0, 256, (MANY, SIDE, SIDE)).byte()
    view = PlacedView(format_of(), smallest=1.0, flip=1.0, colour=STILL)
    turned, turned_masks, moved = drawn(view, images, masks, things(corners))
    assert torch.equal(view.normalise.restore(turned), images.flip(3))
    assert torch.equal(turned_masks, masks.flip(2))
    left, top, right, bottom = corners.float().unbind(2)
    torch.testing.assert_close(moved["boxes"], torch.stack([SIDE - right, top, SIDE - left, bottom], dim=2))


def test_each_image_has_its_own_chance_and_its_own_row(corners):
    same = torch.randint(0, 256, (1, 3, SIDE, SIDE)).byte().expand(8, -1, -1, -1)
    views = drawn(PlacedView(format_of(), colour=STILL), same, None, None)[0]
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    numbers = torch.arange(MANY, dtype=torch.uint8)
    images = numbers[:, None, None, None].expand(-1, 3, SIDE, SIDE)
    view = PlacedView(format_of(), smallest=0.9, colour=STILL)
    made, masks, moved = drawn(
        view, images, numbers[:, None, None].expand(-1, SIDE, SIDE), things(corners, torch.arange(MANY * 2).view(-1, 2))
    )
    assert torch.equal(view.normalise.restore(made), images)
    assert torch.equal(masks, images[:, 0])
    kept = moved["labels"] >= 0
    assert kept.sum() > MANY
    assert torch.equal(moved["labels"][kept], torch.arange(MANY * 2).view(-1, 2)[kept])


def test_chance_is_the_seeds_alone_whatever_is_carried_along(corners):
    images, masks = torch.randint(0, 256, (MANY, 3, SIDE, SIDE)).byte(), painted(corners)
    view, given = PlacedView(format_of()), things(corners)
    before = images.clone(), masks.clone(), given["boxes"].clone(), given["labels"].clone()
    first, first_masks, first_boxes = drawn(view, images, masks, given)
    again, again_masks, none = drawn(view, images, masks, None)
    alone, no_masks, alone_boxes = drawn(view, images, None, given)
    assert none is None
    assert no_masks is None
    assert torch.equal(first, again)
    assert torch.equal(first, alone)
    assert torch.equal(first_masks, again_masks)
    assert all(torch.equal(first_boxes[name], alone_boxes[name]) for name in first_boxes)
    assert not torch.equal(first, drawn(view, images, masks, given, seed=1)[0])
    assert all(map(torch.equal, before, (images, masks, given["boxes"], given["labels"])))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("most", [0, 2])
def test_images_without_things_and_masks_without_known_pixels_stay_so(channels, most):
    images = torch.randint(0, 256, (5, channels, 24, 24)).byte()
    masks = torch.full((5, 24, 24), IGNORED, dtype=torch.uint8)
    empty = things(torch.zeros(5, most, 4), torch.full((5, most), -1))
    views, ignored, moved = drawn(PlacedView(format_of(channels, 24)), images, masks, empty)
    assert (views.shape, views.dtype) == (images.shape, torch.float32)
    assert views.isfinite().all()
    assert torch.equal(ignored, masks)
    assert all(torch.equal(moved[name], empty[name]) for name in empty)
    assert all(moved[name].dtype == empty[name].dtype for name in empty)


def test_colours_change_images_and_no_masks():
    images = torch.randint(0, 256, (8, 3, SIDE, SIDE)).byte()
    masks = torch.arange(256, dtype=torch.uint8).repeat(SIDE).view(8, SIDE, SIDE)
    view = PlacedView(format_of(), smallest=1.0, flip=0.0, colour=Colour(jitter=1.0))
    made, same, _ = drawn(view, images, masks, None)
    assert not torch.equal(view.normalise.restore(made), images)
    assert torch.equal(same, masks)
