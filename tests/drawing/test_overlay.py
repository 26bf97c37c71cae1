"""Masks and boxes on images: what is drawn where, in which colour."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from sslflow.drawing.overlay import Frame, enlarged, framed, inks, marked, pointed, tinted


def image(size: int = 10, channels: int = 3) -> np.ndarray:
    return np.full((channels, size, size), 100, np.uint8)


def test_every_class_but_the_background_has_a_colour_of_its_own():
    found = inks(["Background", *map(str, range(14))])
    assert sorted(found) == list(range(1, 15))
    assert len(set(found.values())) == 14
    assert all(ImageColor.getrgb(ink) for ink in found.values())
    assert sorted(inks(["cat", "dog"])) == [0, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mask_is_seen_where_it_is_and_nowhere_else(channels):
    mask = np.zeros((10, 10), np.uint8)
    mask[2:4, 5:8] = 2
    shown = np.asarray(tinted(image(channels=channels), mask, {2: "#ff0000"}, 40))
    assert shown.shape == (40, 40, 3)
    red = (shown[..., 0] > 150) & (shown[..., 1] < 60)
    assert red[8:16, 20:32].all()
    assert red.sum() == 8 * 12
    assert (shown[~red] == 100).all()


def test_errors_are_red_on_grey():
    wrong = np.zeros((10, 10), bool)
    wrong[0, 9] = True
    shown = np.asarray(marked(image(), wrong, 10))
    assert shown[0, 9, 0] > 150 > 100 > shown[0, 9, 1]
    assert (shown[1:] == 100).all()


def test_a_box_is_drawn_around_its_place():
    shown = np.asarray(framed(image(), [Frame((2, 3, 7, 8), "", "#00ff00")], 80))
    green = (shown == (0, 255, 0)).all(axis=2)
    rows, columns = np.nonzero(green)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (16, 24, 55, 63)
    assert not green[30:58, 22:50].any()


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (9.9, 9.9, 9.9, 9.9), (-3, -2, 14, 12)])
def test_boxes_at_and_over_the_edge_keep_the_picture_s_size(box):
    for dashed in (False, True):
        assert framed(image(), [Frame(box, "a very long name 0.99", "#00ff00", dashed)], 80).size == (80, 80)


def test_a_place_has_a_ring():
    shown = np.asarray(pointed(image(), [(5, 5, "#0000ff")], 80))
    assert (shown == (0, 0, 255)).all(axis=2).any()
    assert (shown[40, 40] == 100).all()


def test_a_large_image_is_not_made_smaller():
    assert enlarged(image(300), 144).size == (300, 300)
