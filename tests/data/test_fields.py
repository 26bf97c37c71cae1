"""What a batch is before it is seen: names to tensors of the same examples."""

from __future__ import annotations

import pytest
import torch

from sslflow.data.fields import Fields


@pytest.fixture
def clips() -> Fields:
    return Fields(frames=torch.arange(24).view(4, 3, 2), sound=torch.arange(8).view(4, 2), groups=torch.arange(4))


def test_fields_are_found_by_name_and_counted_by_example(clips):
    assert list(clips) == ["frames", "sound", "groups"]
    assert "sound" in clips
    assert "images" not in clips
    assert len(clips) == 4
    assert clips["groups"].tolist() == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="images"):
        clips["images"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (torch.tensor([3, 0, 3]), [3, 0, 3]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (slice(0, 0), []),
    ],
)
def test_rows_are_taken_from_every_field(clips, rows, expected):
    some = clips[rows]
    assert list(some) == list(clips)
    assert some["groups"].tolist() == expected
    assert some["sound"].tolist() == [[2 * row, 2 * row + 1] for row in expected]
    assert some["frames"].shape == (len(expected), 3, 2)


def test_moving_moves_every_field_and_changes_none(clips):
    moved = clips.to("meta", non_blocking=True)
    assert moved.device.type == "meta"
    assert all(moved[name].device.type == "meta" and moved[name].shape == clips[name].shape for name in clips)
    assert clips.device.type == "cpu"


def test_fields_can_t_be_changed(clips):
    with pytest.raises(TypeError):
        clips["frames"] = torch.zeros(4)
    with pytest.raises(AttributeError):
        clips.masks = torch.zeros(4)


def test_fields_of_other_examples_are_an_error():
    with pytest.raises(ValueError, match=r"expected fields of the same examples, found images: 3, masks: 2"):
        Fields(images=torch.zeros(3, 1), masks=torch.zeros(2, 1))
    with pytest.raises(ValueError, match="found no field at all"):
        Fields()
