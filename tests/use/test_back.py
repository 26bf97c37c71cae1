"""Predictions go back where the prepared pixels came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sslflow.data.annotated import IGNORED
from sslflow.ingest.images.decode import decode
from sslflow.ingest.images.geometry import Fit, Placement, placement
from sslflow.use import back
from sslflow.use.back import boxes_back, classes_back, cut_away

SIZE = 24
SIZES = [(24, 24), (60, 31), (31, 60), (7, 50), (300, 200), (9, 9)]
FITS = ("crop", "pad", "stretch")


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_bright_part_of_a_picture_is_found_where_it_was(width: int, height: int, fit: Fit) -> None:
    """`decode` itself says where the picture's pixels came to lie; a perfect model sees what is bright."""
    left, top = width * 3 // 8, height * 3 // 8
    right, bottom = max(left + 1, width * 3 // 4), max(top + 1, height * 3 // 4)
    picture = np.zeros((height, width), np.uint8)
    picture[top:bottom, left:right] = 255
    seen = torch.from_numpy(decode(picture, SIZE, 1, fit=fit, background="black").pixels[0].astype(np.float32))
    placed = placement(width, height, SIZE, fit)
    found = classes_back(torch.stack([255 - seen, seen]), placed, width, height)
    assert (found.shape, found.dtype) == ((height, width), np.uint8)
    known = found != IGNORED
    assert known.sum() == (min(width, height) ** 2 if fit == "crop" else width * height)
    assert 1 - known.mean() == pytest.approx(cut_away(placed, width, height))
    # An edge may be off by half a pixel of the smaller of both images.
    across, down = (np.arange(length) + 0.5 for length in (width, height))
    slack = [
        max(1, (high - low) / size) * 0.6
        for low, high, size in zip(placed.part[:2], placed.part[2:], placed.size, strict=True)
    ]
    near_x = np.minimum(abs(across - left), abs(across - right)) <= slack[0] + 0.5
    near_y = np.minimum(abs(down - top), abs(down - bottom)) <= slack[1] + 0.5
    sure = known & ~near_x[None] & ~near_y[:, None]
    assert np.array_equal(found[sure], (picture[sure] > 0).astype(np.uint8))
    if min(width, height) > 20:
        assert (found[known] == 1).sum() == pytest.approx((picture[known] > 0).sum(), rel=0.1)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_boxes_come_back(width: int, height: int, fit: Fit) -> None:
    placed = placement(width, height, SIZE, fit)
    left, top, right, bottom = placed.part
    boxes = np.random.default_rng(0).uniform(0, 1, (20, 2, 2))
    boxes = np.concatenate([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
    boxes = np.asarray([left, top] * 2) + boxes * np.asarray([right - left, bottom - top] * 2)
    np.testing.assert_allclose(boxes_back(placed.moved(boxes), placed, width, height), boxes, atol=1e-9)
    border = boxes_back(np.asarray([[-3.0, -3.0, SIZE + 3, SIZE + 3]]), placed, width, height)[0]
    assert border[0] >= 0
    assert border[1] >= 0
    assert border[2] <= width
    assert border[3] <= height


def test_of_an_image_of_the_models_size_nothing_is_changed_and_parts_make_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.randn(5, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    same = classes_back(logits, placement(SIZE, SIZE, SIZE, "crop"), SIZE, SIZE)
    assert np.array_equal(same, logits.argmax(dim=0).numpy())
    placed = placement(80, 60, SIZE, "stretch")
    whole = classes_back(logits, placed, 80, 60)
    expected = F.interpolate(logits[None], size=(60, 80), mode="bilinear")[0]
    sure = expected.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-4
    assert np.array_equal(whole[sure.numpy()], expected.argmax(dim=0)[sure].numpy())
    monkeypatch.setattr(back, "STRIP", 10_000)
    assert np.array_equal(classes_back(logits, placed, 80, 60), whole)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize(("width", "height"), [(96, 61), (61, 96), (61, 10), (10, 61), (24, 24)])
def test_an_edge_is_where_a_ramp_of_logits_has_it(width: int, height: int, fit: Fit) -> None:
    """Logits that grow linearly across the square pass 0 at a known place of the picture: the classes of its pixels
    change there, to a tenth of a pixel, wherever that is."""
    placed = placement(width, height, SIZE, fit)
    middles = torch.arange(SIZE) + 0.5
    for axis, length in ((0, width), (1, height)):
        low, high = placed.part[axis], placed.part[axis + 2]
        scale = placed.size[axis] / (high - low)
        inside = (np.arange(length) + 0.5 > low + 0.5 / scale) & (np.arange(length) + 0.5 < high - 0.5 / scale)
        for edge in np.arange(low + 0.5 / scale, high - 0.5 / scale, (high - low) / 37):
            ramp = middles - (placed.at[axis] + (edge - low) * scale)
            ramp = ramp.expand(SIZE, SIZE) if axis == 0 else ramp[:, None].expand(SIZE, SIZE)
            found = classes_back(torch.stack([-ramp, ramp]), placed, width, height)
            line = np.moveaxis(found, axis, 0)[_middle(placed, 1 - axis)]
            beyond = np.arange(length) + 0.5 - edge
            sure = inside & (abs(beyond) > 0.1)
            assert np.array_equal(line[sure], (beyond[sure] > 0).astype(np.uint8))


def _middle(placed: Placement, axis: int) -> int:
    """A pixel of the picture that the square shows."""
    return int((placed.part[axis] + placed.part[axis + 2]) / 2)


def test_a_picture_with_few_rows_is_no_more_parts_than_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back, "STRIP", 10_000)
    logits = torch.randn(5, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = classes_back(logits, placement(7000, 3, SIZE, "stretch"), 7000, 3)
    expected = F.interpolate(logits[None], size=(3, 7000), mode="bilinear")[0].argmax(dim=0).numpy()
    assert (found == expected).mean() > 0.999


def test_a_border_takes_no_part(tmp_path) -> None:
    """Beside the picture the model sees a class of its own, which no pixel of the picture is given."""
    placed = placement(48, 12, SIZE, "pad")
    logits = torch.zeros(2, SIZE, SIZE)
    logits[1] = 9.0
    logits[:, placed.at[1] : placed.at[1] + placed.size[1]] = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    assert (classes_back(logits, placed, 48, 12) == 0).all()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_on_its_side_is_answered_upright(orientation: int, tmp_path) -> None:
    picture = np.zeros((40, 60), np.uint8)
    picture[5:15, 10:30] = 255
    image = Image.fromarray(picture)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    decoded = decode(tmp_path / "a.png", SIZE, 1, fit="pad", background="black")
    turned = np.rot90(picture, {3: 2, 6: -1, 8: 1}[orientation])
    assert (decoded.height, decoded.width) == turned.shape
    seen = torch.from_numpy(decoded.pixels[0].astype(np.float32))
    placed = placement(decoded.width, decoded.height, SIZE, "pad")
    found = classes_back(torch.stack([255 - seen, seen]), placed, decoded.width, decoded.height)
    both, either = ((found == 1) & (turned > 0)).sum(), ((found == 1) | (turned > 0)).sum()
    assert both / either > 0.75
