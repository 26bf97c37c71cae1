"""Shapes against pycocotools and against slow ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from sslflow.ingest.images import shapes
from sslflow.ingest.images.files import Refused

FRAME = (40, 30)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools


def encoded(mask: np.ndarray) -> str:
    """Compressed run lengths."""
    found: Any = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return found["counts"].decode()


def filled(shape, frame=FRAME) -> np.ndarray | None:
    found = shapes.checked(shape, frame, [])
    return None if found is None else coco.decode(found).astype(bool)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_give_what_was_encoded(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 70, 2).tolist()
    mask = rng.random((height, width)) < rng.random()
    mask = np.pad(mask, ((0, int(rng.integers(0, 3)) * 900), (0, 5)))
    height, width = mask.shape
    found = filled({"size": [height, width], "counts": encoded(mask)}, (width, height))
    assert found is not None
    assert (found == mask).all()


def test_no_text_of_run_lengths_ends_the_process():
    """pycocotools itself reads outside of its memory for some of these."""
    rng = np.random.default_rng(0)
    good = encoded(np.eye(30, 40))
    for _ in range(1_000):
        text = "".join(map(chr, rng.integers(1, 200, rng.integers(0, 30))))
        at = int(rng.integers(0, len(good)))
        assert filled({"size": [30, 40], "counts": text}) is None
        filled({"size": [30, 40], "counts": good[:at] + chr(int(rng.integers(48, 112))) + good[at + 1 :]})
        assert filled({"size": [30, 40], "counts": good[:at]}) is None


def test_run_lengths_of_another_size_are_refused():
    with pytest.raises(Refused, match="30 x 40, the image is 40 x 30"):
        filled({"size": [40, 30], "counts": np.asarray([1200.0])})


def test_polygons_are_filled_as_pycocotools_does():
    polygons = (np.asarray([3.0, 3, 20, 5, 12, 25]), np.asarray([25.0, 2, 38, 2, 38, 9, 25, 9]))
    found = filled(polygons)
    assert found is not None
    whole = coco.decode(coco.merge(coco.frPyObjects([one.tolist() for one in polygons], 30, 40)))
    assert (found == whole).all()
    assert found[2:9, 25:38].all()


@pytest.mark.parametrize(
    ("points", "crossing"),
    [
        ([(0, 0), (9, 0), (9, 9), (0, 9)], False),
        ([(0, 0), (9, 9), (9, 0), (0, 9)], True),
        ([(0, 0), (9, 0), (9, 9), (5, 3), (0, 9)], False),
        ([(0, 0), (9, 0), (9, 9), (5, -3), (0, 9)], True),
        ([(0, 0), (9, 0), (9, 0), (9, 9), (0, 9)], False),
        ([(0, 0), (5, 0), (9, 0), (9, 9), (0, 9)], False),
        ([(0, 0), (9, 0), (4, 4)], False),
    ],
)
def test_polygons_that_cross_themselves(points, crossing):
    assert shapes.crosses_itself(np.asarray(points, float)) is crossing
    for shift in range(len(points)):
        turned = np.roll(np.asarray(points, float), shift, axis=0)
        assert shapes.crosses_itself(turned) is shapes.crosses_itself(turned[::-1]) is crossing
