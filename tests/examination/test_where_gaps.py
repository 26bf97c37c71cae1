"""Scores of masks and boxes: what others find, and no surer than seeds and images allow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from sslflow.evaluation.intervals import Interval
from sslflow.examination.where.gaps import class_ious, gap, mean_iou, over, remembered

CLASSES, IGNORED = 4, 255


def masks(numbers: np.random.Generator, images: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Truth with ignored pixels and without the last class, and predictions."""
    actual = numbers.integers(0, CLASSES - 1, (images, 6, 6))
    actual[numbers.random(actual.shape) < 0.1] = IGNORED
    predicted = np.where(numbers.random(actual.shape) < right, actual, numbers.integers(0, CLASSES - 1, actual.shape))
    return actual, np.where(predicted == IGNORED, 0, predicted)


def counted(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    known = actual != IGNORED
    found = [
        np.stack([(known & here & there).sum((1, 2)), (known & here).sum((1, 2)), there.sum((1, 2))], axis=1)
        for here, there in ((predicted == label, actual == label) for label in range(CLASSES))
    ]
    return np.stack(found, axis=1)


def test_mean_iou_is_that_of_torchmetrics_however_often_images_count():
    numbers = np.random.default_rng(0)
    actual, predicted = masks(numbers, 12, 0.5)
    times = np.stack([np.ones(12), *numbers.multinomial(12, np.full(12, 1 / 12), size=3)])
    score = mean_iou(counted(actual, predicted))
    for found, each in zip(score(times), times.astype(int), strict=True):
        pair = (torch.from_numpy(np.repeat(one, each, axis=0)) for one in (predicted, actual))
        expected = multiclass_jaccard_index(*pair, num_classes=CLASSES, ignore_index=IGNORED)
        assert found == pytest.approx(float(expected))
    assert np.isnan(class_ious(counted(actual, predicted), times)[:, -1]).all()


def test_of_images_without_a_known_pixel_there_is_no_score():
    assert np.isnan(mean_iou(np.zeros((3, CLASSES, 3)))(np.ones((2, 3)))).all()


def test_a_gap_is_in_pairs_and_surer_than_either_score():
    numbers = np.random.default_rng(1)
    pairs = [masks(numbers, 60, right) for right in (0.6, 0.6)]
    theirs = [counted(actual, predicted) for actual, predicted in pairs]
    better = [np.where(numbers.random(one[0].shape) < 0.1, one[0], one[1]) for one in pairs]
    ours = [counted(actual, np.where(own == IGNORED, 0, own)) for (actual, _), own in zip(pairs, better, strict=True)]
    groups = np.arange(60)
    a, b = ([mean_iou(one) for one in side] for side in (ours, theirs))
    found = gap(a, b, groups)
    once = np.ones((1, 60))
    assert found.mean == pytest.approx(np.mean([x(once)[0] - y(once)[0] for x, y in zip(a, b, strict=True)]))
    alone, single = gap(a[:1], b[:1], groups), over(a[:1], groups)
    assert alone.sure
    assert alone.high - alone.low < single.high - single.low
    assert not gap(a, a[::-1], groups).sure


def test_an_interval_ends_where_scores_do():
    found = over([lambda times: np.where(times[:, 0] > 1, 0.9, 1.0)], np.arange(4))
    assert isinstance(found, Interval)
    assert found.high == 1.0
    low = over([lambda times: np.where(times[:, 0] > 1, 0.1, 0.0)], np.arange(4))
    assert low.low == 0.0


def test_images_of_a_group_are_drawn_together():
    numbers = np.random.default_rng(2)
    own = counted(*masks(numbers, 40, 0.5))
    once = over([mean_iou(own)], np.arange(40))
    twice = over([mean_iou(np.tile(own, (2, 1, 1)))], np.tile(np.arange(40), 2))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_what_is_remembered_is_worked_out_once_for_the_same_samples():
    asked = []

    def score(times: np.ndarray) -> np.ndarray:
        asked.append(len(times))
        return times.mean(axis=1)

    again, groups = remembered(score), np.arange(5)
    assert over([again], groups) == over([again], groups) == over([score], groups)
    assert gap([again], [again], groups).mean == 0
    assert sorted(asked) == [1, 1, 300, 300]
