"""Accuracy of large, middling and small classes, and how far it can be trusted."""

from __future__ import annotations

import numpy as np
import pytest

from sslflow.evaluation.intervals import crossed, wilson
from sslflow.evaluation.shots import (
    class_weights,
    gap_over_classes,
    linear_terms,
    over_classes,
    shots,
    spread_terms,
)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1200, 719, 431, 258, 155, 93, 56, 33, 20, 12], ([0, 1, 2], [3, 4, 5, 6], [7, 8, 9])),
        ([12, 1200, 100], ([1], [2], [0])),
        ([50, 10], ([0], [], [1])),
        ([80, 80, 80, 5], ([], [0, 1, 2], [3])),
        ([80, 80, 5, 0], ([0, 1], [], [2])),
        ([7, 7, 7], ([], [0, 1, 2], [])),
    ],
)
def test_few_classes_are_divided_by_thirds_and_equal_ones_stay_together(sizes, expected):
    found = shots(dict(enumerate(sizes)))
    assert tuple(found.get(name, []) for name in ("many", "medium", "few")) == expected


def test_many_classes_are_divided_by_the_bounds_of_the_field():
    sizes = dict(enumerate([101] * 10 + [100] * 10 + [20] * 5 + [19] * 7))
    assert [len(own) for own in shots(sizes).values()] == [10, 15, 7]
    without_few = dict(enumerate(range(40, 75)))
    assert set(shots(without_few)) == {"many", "medium", "few"}  # by thirds


def answers(rng, per_class: list[int], shares: list[float], seeds: int) -> tuple[np.ndarray, np.ndarray]:
    actual = np.repeat(np.arange(len(per_class)), per_class)
    return rng.random((seeds, len(actual))) < np.asarray(shares)[actual], actual


def test_the_mean_is_over_classes_and_not_over_images():
    rng = np.random.default_rng(0)
    right, actual = answers(rng, [90, 10, 30], [0.9, 0.2, 0.5], 2)
    each = [right[:, actual == label].mean() for label in range(3)]
    groups = np.arange(len(actual))
    assert over_classes(right, actual, groups, [0, 1, 2]).mean == pytest.approx(np.mean(each))
    assert over_classes(right, actual, groups, [1, 2, 7]).mean == pytest.approx(np.mean(each[1:]))
    assert gap_over_classes(right[:1] * 1.0 - right[1:], actual, groups, [1]).mean == pytest.approx(
        right[0, actual == 1].mean() - right[1, actual == 1].mean()
    )
    weights = class_weights(actual, [0, 1])
    assert weights.mean() == pytest.approx(1)
    assert not weights[actual == 2].any()


def test_classes_without_a_test_image_have_no_accuracy():
    with pytest.raises(ValueError, match="test image"):
        class_weights(np.array([0, 0, 1]), [2])


def test_an_interval_holds_the_truth_as_often_as_it_says():
    rng, truth, held = np.random.default_rng(1), np.mean([0.9, 0.3, 0.6, 0.5]), 0
    for _ in range(300):
        right, actual = answers(rng, [80, 8, 40, 15], [0.9, 0.3, 0.6, 0.5], 1)
        told = over_classes(right, actual, np.arange(len(actual)), [0, 1, 2, 3])
        held += told.low <= truth <= told.high
    assert held / 300 >= 0.93


def test_one_test_image_of_each_class_leaves_much_to_chance():
    told = over_classes(np.ones((3, 4)), np.arange(4), np.arange(4), [0, 1, 2, 3])
    assert told.mean == told.high == 1
    assert told.low < 0.6


def test_the_spread_is_that_of_the_classes_and_its_interval_that_of_drawing_images_again():
    rng = np.random.default_rng(2)
    per_class, shares = [200, 150, 100], [0.9, 0.7, 0.4]
    right, actual = answers(rng, per_class, shares, 1)
    each = [right[0, actual == label].mean() for label in range(3)]
    terms = spread_terms(right, actual, [0, 1, 2])
    assert terms.mean() == pytest.approx(np.std(each))
    drawn = [
        np.std([own[0, actual == label].mean() for label in range(3)])
        for own, _ in (answers(rng, per_class, shares, 1) for _ in range(2000))
    ]
    told = crossed(terms, np.arange(len(actual)))
    assert (told.high - told.low) / 2 == pytest.approx(1.96 * np.std(drawn), rel=0.2)
    assert spread_terms(np.ones((2, 6)), np.arange(6) % 2, [0, 1]).tolist() == [[0.0] * 6] * 2


def test_linear_terms_keep_the_mean_of_each_seed():
    values, weights = np.array([[1.0, 0, 1, 1], [0, 0, 1, 0]]), np.array([2.0, 2, 0, 0])
    assert linear_terms(values, weights).mean(axis=1).tolist() == [0.5, 0.0]


def test_a_gap_that_no_image_of_a_small_class_shows_is_as_unsure_as_these_images_are_few():
    actual = np.array([0] * 244 + [1, 1, 2])
    values = np.zeros((1, len(actual)))
    values[0, :20] = 1.0  # the large class differs, which says nothing of the small ones
    groups = np.arange(len(actual))
    found = gap_over_classes(values, actual, groups, [1, 2])
    assert (found.mean, found.sure) == (0.0, False)
    assert found.high == pytest.approx(1 - wilson(1.0, 3)[0])
    assert found.low == -found.high
    assert gap_over_classes(values, actual, groups, [0]).high < 0.2
