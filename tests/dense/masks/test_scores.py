"""Scores of pixels: against torchmetrics, and boundaries against a search pixel by pixel."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from sslflow.dense.masks.scores import Scores, boundary_of, boundary_width, confusion_of

IGNORED = 255


def scores(predicted: torch.Tensor, actual: torch.Tensor, classes: int) -> Scores:
    found = confusion_of(predicted, actual, classes)
    hit, taken, there = (one.numpy() for one in (found.diagonal(dim1=1, dim2=2), found.sum(dim=1), found.sum(dim=2)))
    return Scores(hit, taken, there, found.sum(0).numpy(), boundary_of(predicted, actual, classes, 1).numpy())


def images(classes: tuple[int, ...], count: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = np.random.default_rng(seed)
    predicted, actual = (torch.from_numpy(numbers.choice(classes, (count, 9, 9)).astype(np.uint8)) for _ in "ab")
    actual[torch.from_numpy(numbers.random((count, 9, 9)) < 0.2)] = IGNORED
    return predicted, actual


@pytest.mark.parametrize(
    "classes", [(0, 1, 2, 3, 4), pytest.param((0, 2, 4), id="two are neither there nor predicted"), (3,)]
)
def test_ious_are_those_of_torchmetrics(classes):
    predicted, actual = images(classes)
    found = scores(predicted, actual, 5)
    pair = predicted.long(), actual.long()
    each = MulticlassJaccardIndex(5, average=None, ignore_index=IGNORED)(*pair).numpy()
    assert np.nan_to_num(found.ious) == pytest.approx(each)
    assert np.flatnonzero(~np.isnan(found.ious)).tolist() == list(classes)
    assert found.miou == pytest.approx(float(MulticlassJaccardIndex(5, average="macro", ignore_index=IGNORED)(*pair)))
    assert found.accuracy == pytest.approx(float(MulticlassAccuracy(5, average="micro", ignore_index=IGNORED)(*pair)))


def test_a_class_that_is_only_predicted_counts_as_missed():
    actual = torch.zeros(1, 4, 4, dtype=torch.uint8)
    predicted = actual.clone()
    predicted[0, 0, 0] = 1
    found = scores(predicted, actual, 3)
    assert found.ious[:2].tolist() == [15 / 16, 0]
    assert found.miou == pytest.approx(15 / 32)


def test_an_image_of_which_nothing_is_known_counts_nothing():
    predicted, actual = images((0, 1, 2))
    blank = torch.full_like(actual[:1], IGNORED)
    with_it = scores(torch.cat([predicted, predicted[:1]]), torch.cat([actual, blank]), 3)
    assert with_it.miou == scores(predicted, actual, 3).miou
    assert with_it.boundary.tolist() == scores(predicted, actual, 3).boundary.tolist()
    assert with_it.predicted[-1].sum() == with_it.actual[-1].sum() == 0
    nothing = scores(predicted[:1], blank, 3)
    assert (nothing.miou, nothing.accuracy, nothing.boundary_iou) == (0, 0, 0)


def slow_rim(mask: np.ndarray, width: int) -> set[tuple[int, int]]:
    """The pixels from which some place outside of the mask can be reached in so many steps of a king."""
    side = len(mask)
    inside = {(y, x) for y in range(side) for x in range(side) if mask[y, x]}
    near = [(dy, dx) for dy in range(-width, width + 1) for dx in range(-width, width + 1)]
    return {(y, x) for y, x in inside if any((y + dy, x + dx) not in inside for dy, dx in near)}


@pytest.mark.parametrize("width", [1, 2])
def test_boundaries_are_those_of_a_search_pixel_by_pixel(width):
    numbers = np.random.default_rng(2)
    blobs = torch.from_numpy(numbers.random((2, 3, 3, 15, 15)).astype(np.float32))
    smooth = torch.nn.functional.avg_pool2d(blobs.flatten(0, 1), 5, 1, 2).unflatten(0, (2, 3)).argmax(dim=2)
    predicted, actual = smooth.to(torch.uint8)
    actual[:, :, 3] = IGNORED
    wanted = np.zeros((2, 4), np.int64)
    for here, there in zip(predicted.numpy(), actual.numpy(), strict=True):
        for number in range(4):
            a, b = (slow_rim((mask == number) & (there != IGNORED), width) for mask in (here, there))
            wanted[:, number] += len(a & b), len(a | b)
    assert boundary_of(predicted, actual, 4, width).tolist() == wanted.tolist()
    assert wanted[1, :3].all()
    assert not wanted[1, 3]
    assert wanted[0].sum() < wanted[1].sum() < 2 * 15 * 15 * 3


def test_a_boundary_is_two_hundredths_of_the_diagonal():
    assert [boundary_width(side) for side in (16, 64, 224)] == [1, 2, 6]
