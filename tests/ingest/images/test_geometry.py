"""Masks and boxes come to lie where the pixels of their image do."""

from __future__ import annotations

import numpy as np
import pytest
from annotation_fixtures import saved
from data_fixtures import encoded, in_process, write
from PIL import Image

from sslflow.data.dataset import Dataset
from sslflow.ingest.images import prepare as module
from sslflow.ingest.images.geometry import SWAPPING, TURNS, placement, turned
from sslflow.ingest.images.prepare import prepare

SIDES = (96, 48)
BLOCK = (32, 8, 56, 24)
"""Of an upright picture of these sides, what is white of it: not in the middle, so that no turn leads it to itself."""
LANDED = {"crop": (4, 4, 16, 12), "pad": (8, 8, 14, 12), "stretch": (8, 4, 14, 12)}
"""By fit, where that is in a square of 24, worked out by hand; all edges are whole pixels."""
BACK = {6: 8, 8: 6}


@pytest.fixture(autouse=True)
def without_processes(monkeypatch):
    monkeypatch.setattr(module, "examine_all", in_process)


def picture() -> Image.Image:
    pixels = np.zeros((SIDES[1], SIDES[0]), np.uint8)
    left, top, right, bottom = BLOCK
    pixels[top:bottom, left:right] = 255
    return Image.fromarray(pixels).convert("RGB")


def stored(orientation: int, number: int) -> bytes:
    """A JPEG file that a viewer turns upright."""
    image = picture()
    image.putpixel((90, 40), (number, 0, 0))  # so that none equals another
    if orientation in TURNS:
        image = image.transpose(TURNS[BACK.get(orientation, orientation)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", quality=100, subsampling=0, exif=exif)


def described(orientation: int, number: int, *, as_stored: bool = False) -> tuple[dict, list[dict]]:
    """COCO's image, and the block as polygon and, in another category, as a box alone."""
    width, height = SIDES
    left, top, right, bottom = BLOCK
    if as_stored:  # the way back, worked out by hand: 6 is shown turned by a quarter to the right
        assert orientation == 6
        left, top, right, bottom = top, width - right, bottom, width - left
        width, height = height, width
    box = [left, top, right - left, bottom - top]
    shape = [[left, top, right, top, right, bottom, left, bottom]]
    common = {"image_id": number, "bbox": box, "iscrowd": 0}
    image = {"id": number, "file_name": f"{number}.jpg", "width": width, "height": height}
    return image, [
        {"id": 2 * number, "category_id": 1, "segmentation": shape, **common},
        {"id": 2 * number + 1, "category_id": 2, "segmentation": shape, **common},
    ]


def check_where(dataset: Dataset, fit: str, count: int) -> None:
    assert dataset.truth is not None
    rows = dataset.truth.rows("boxes")
    assert len(rows) == count
    left, top, right, bottom = LANDED[fit]
    block = np.zeros((24, 24), bool)
    block[top:bottom, left:right] = True
    assert (dataset.read(rows)["images"].numpy() > 127).tolist() == [[block.tolist()] * 3] * count
    for mask, found in zip(dataset.truth.masks(rows).numpy(), dataset.truth.things(rows), strict=True):
        assert found.boxes.tolist() == [list(LANDED[fit])] * 2
        assert ((mask == 1) | (mask == 2)).tolist() == block.tolist()
        border = np.zeros((24, 24), bool)
        if fit == "pad":
            border[:6] = border[18:] = True
        assert (mask == 255).tolist() == border.tolist()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_they_land_where_the_image_does(tmp_path, fit):
    """In all eight orientations of EXIF, and once annotated as stored."""
    content: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 1, "name": "block"}, {"id": 2, "name": "bloc"}]
    for number, orientation in enumerate([1, 2, 3, 4, 5, 6, 7, 8, 6]):
        write(tmp_path / f"raw/{number}.jpg", stored(orientation, number))
        image, things = described(orientation, number, as_stored=number == 8)
        content["images"].append(image)
        content["annotations"] += things
    lines: list[str] = []
    prepare(
        tmp_path / "out",
        lines.append,
        source="folder",
        path=str(tmp_path / "raw"),
        annotations=f"coco:{saved(tmp_path / 'a.json', content)}",
        image_size=24,
        channels=3,
        fit=fit,
        background="black",
        duplicates="keep",
    )
    check_where(Dataset(tmp_path / "out"), fit, 9)
    assert sum("stored on its side" in line for line in lines) == 1


@pytest.mark.parametrize("orientation", SWAPPING)
def test_boxes_turn_as_pixels_do(orientation):
    width, height = 7, 4
    pixels = np.zeros((height, width), np.uint8)
    pixels[1:3, 4:5] = 1
    ys, xs = np.nonzero(np.asarray(Image.fromarray(pixels).transpose(TURNS[orientation])))
    box = turned(np.asarray([[4.0, 1.0, 5.0, 3.0]]), orientation, width, height)
    assert box.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_on_its_side_is_placed_as_the_upright_one(fit):
    for width, height in [(7, 4), (4, 7), (1, 90), (33, 32)]:
        upright, aside = placement(width, height, 16, fit), placement(height, width, 16, fit)
        assert upright.size == aside.size[::-1]
        assert upright.at == aside.at[::-1]
        moved = upright.moved(np.asarray([[0.0, 0.0, width, height]]))[0]
        size = np.asarray(upright.size)
        if fit != "crop":
            assert moved.tolist() == [*upright.at, *(upright.at + size)]
        else:
            assert moved[2] - moved[0] == pytest.approx(16 * width / min(width, height))
            assert moved[0] + moved[2] == pytest.approx(16)
