"""Contact sheets hold the pixels they were given, where they belong."""

import numpy as np
import pytest
import torch

from sslflow.drawing.contact_sheet import contact_sheet


def test_pixels_stand_in_reading_order():
    images = np.arange(5 * 3 * 4 * 6, dtype=np.uint8).reshape(5, 3, 4, 6)
    sheet = np.asarray(contact_sheet(images, columns=3))
    assert sheet.shape == (6 + 2 * 4 + 2 + 6, 6 + 3 * 6 + 2 * 2 + 6, 3)
    assert (sheet[6:10, 14:20] == images[1].transpose(1, 2, 0)).all()
    assert (sheet[12:16, 6:12] == images[3].transpose(1, 2, 0)).all()
    assert (sheet[12:16, 22:28] == 255).all()


def test_grey_tensors_are_enlarged_and_words_make_room():
    images = torch.arange(4 * 9, dtype=torch.uint8).reshape(4, 1, 3, 3)
    plain = contact_sheet(images, columns=2, scale=20)
    worded = contact_sheet(
        images, columns=2, scale=20, row_labels=["one", "two"], column_labels=["left", "a long word"]
    )
    assert worded.width > plain.width
    assert worded.height > plain.height
    pixels = np.asarray(worded)
    corner = pixels[-6 - 60 : -6, -6 - 60 : -6]
    assert (corner == images[3].numpy().repeat(20, 1).repeat(20, 2).transpose(1, 2, 0)).all()
    assert (pixels[:, : worded.width - plain.width] < 255).any()


def test_words_are_larger_on_a_wide_sheet_which_is_shown_smaller():
    images = np.full((16, 3, 100, 100), 255, np.uint8)
    heights = []
    for columns in (4, 16):
        sheet = np.asarray(contact_sheet(images[:columns], columns=columns, row_labels=["H"]))
        inked = np.flatnonzero((sheet < 128).any(axis=(1, 2)))
        heights.append(inked[-1] - inked[0] + 1)
    assert heights[1] > 1.5 * heights[0]


def test_a_sheet_of_nothing_but_words_is_a_picture():
    sheet = contact_sheet(
        np.zeros((0, 1, 8, 8), np.uint8), columns=2, row_labels=["empty"], title="a title wider than images"
    )
    assert sheet.width > 100


@pytest.mark.parametrize(
    "images", [np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 4), np.uint8), np.zeros((2, 2, 4, 4), np.uint8)]
)
def test_other_shapes_and_types_are_refused(images):
    with pytest.raises(ValueError, match="expected uint8 images"):
        contact_sheet(images, columns=2)
