"""Differences of adaptation's scores: as large as the scores say, and no surer than seeds and images allow."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from sslflow.adaptation.task import UNKNOWN
from sslflow.evaluation.intervals import Interval, crossed, resampled
from sslflow.examination.adaptation import gaps
from sslflow.examination.adaptation.gaps import MARGIN, Decided, Score, Truth, gap, signed, verdict
from sslflow.examination.adaptation.open_set import open_set_scores


def truth(numbers: np.random.Generator, count: int = 200, unknown: float = 0.4) -> Truth:
    """Five known classes, and unknown images."""
    known = numbers.random(count) >= unknown
    return Truth(known, np.where(known, numbers.integers(0, 5, count), UNKNOWN), np.arange(count))


def decided(numbers: np.random.Generator, of: Truth, right: float) -> Decided:
    """Decisions that are right in a share of cases."""
    hit = numbers.random(len(of.known)) < right
    return Decided(hit & of.known, np.where(of.known, ~hit & (numbers.random(len(hit)) < 0.5), hit))


def scores(of: Truth, made: Decided) -> dict[str, float]:
    predicted = np.where(made.rejected, UNKNOWN, np.where(made.right, of.actual, 9))
    actual, closed = torch.from_numpy(of.actual), torch.from_numpy(predicted)
    return open_set_scores(actual, closed, closed, torch.zeros(len(actual)))


@pytest.mark.parametrize("unknown", [0.0, 0.4, 1.0])
def test_a_gap_is_the_difference_of_the_scores(unknown):
    numbers = np.random.default_rng(0)
    of = truth(numbers, unknown=unknown)
    ours, theirs = ([decided(numbers, of, right) for _ in range(3)] for right in (0.8, 0.5))
    main = {0.0: "accuracy", 0.4: "h", 1.0: "unk"}[unknown]
    names: tuple[tuple[Score, str], ...] = ("main", main), ("unk", "unk"), ("os_star", "os_star")
    for name, key in names:
        found = gap(name, of, ours, theirs)
        if key not in scores(of, ours[0]):
            assert found is None
        else:
            each = [np.mean([scores(of, made)[key] for made in side]) for side in (ours, theirs)]
            assert found is not None
            assert found.mean == pytest.approx(each[0] - each[1])
            assert found.low < found.mean < found.high
    assert gap("main", of, [], []) is None


def test_the_mean_over_classes_is_that_of_a_loop_over_them():
    numbers = np.random.default_rng(4)
    of = truth(numbers, 60)
    made = decided(numbers, of, 0.6)
    times = numbers.poisson(0.3, (40, 60)).astype(np.float64)
    expected = []
    for each in times:
        own = [each * of.known * (of.actual == number) for number in range(5)]
        expected.append(np.mean([part @ made.right / part.sum() for part in own if part.any()]))
    np.testing.assert_allclose(gaps._scores("os_star", of, made, times), expected, rtol=1e-12)


def test_many_classes_of_many_images_take_no_table_of_both():
    numbers, images = np.random.default_rng(5), 40_000
    of = Truth(np.ones(images, bool), numbers.integers(0, 400, images), np.arange(images))
    made = Decided(numbers.random(images) < 0.5, np.zeros(images, bool))
    times = np.ones((2, images))
    tracemalloc.start()
    gaps._scores("os_star", of, made, times)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * images


@pytest.mark.parametrize("groups", [np.arange(300), np.arange(300) // 3, np.zeros(300, int)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_of_a_mean_the_bootstrap_finds_what_crossed_does(seeds, groups):
    values = np.random.default_rng(1).normal(0.1, 1, (seeds, 300))
    found = resampled(lambda times: times @ values.T / times.sum(axis=1, keepdims=True), groups, draws=2000)
    expected = crossed(values, groups)
    assert found.mean == pytest.approx(expected.mean)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.06)


def test_a_bootstrap_repeats_and_takes_things_of_a_group_together():
    numbers = np.random.default_rng(2)
    of, made = truth(numbers), [decided(numbers, truth(numbers), 0.7) for _ in range(2)]
    assert gap("main", of, made[:1], made[1:]) == gap("main", of, made[:1], made[1:])
    twice = Truth(np.tile(of.known, 2), np.tile(of.actual, 2), np.tile(of.groups, 2))
    both = [Decided(np.tile(one.right, 2), np.tile(one.rejected, 2)) for one in made]
    single, double = gap("main", of, made[:1], made[1:]), gap("main", twice, both[:1], both[1:])
    assert single is not None
    assert double is not None
    assert double.high - double.low == pytest.approx(single.high - single.low, rel=1e-6)


@pytest.mark.parametrize(("seeds", "of_seeds"), [(1, 0.0), (2, 0.03), (3, 0.03)])
def test_equal_methods_are_seldom_called_better_or_worse_and_five_points_never_level(seeds, of_seeds):
    """`of_seeds`: standard deviation, over seeds, of the share that is right."""
    numbers, called, level = np.random.default_rng(0), 0, 0
    for _ in range(100):
        of = truth(numbers)
        shares = numbers.normal(0.6, of_seeds, (2, seeds))
        ours, theirs = ([decided(numbers, of, share) for share in side] for side in shares)
        found = gap("main", of, ours, theirs)
        assert found is not None
        called += verdict(found) in ("better", "worse")
        worse = gap("main", of, [decided(numbers, of, share - 0.05) for share in shares[0]], theirs)
        assert worse is not None
        level += verdict(worse) == "level"
    assert called <= 0.08 * 100
    assert level == 0


def test_three_seeds_that_agree_are_not_level_where_images_are_few():
    """−0.3, −0.2 and 0.0 points, by one image in hundreds against others: what other images would give isn't known."""
    numbers = np.random.default_rng(3)
    count = 1000
    of = Truth(np.ones(count, bool), np.zeros(count, int), np.arange(count))
    theirs, ours = [], []
    for less in (3, 2, 0):
        right = numbers.random(count) < 0.6
        order = numbers.permutation(count)
        hits, misses = order[right[order]], order[~right[order]]
        other = right.copy()
        other[hits[: 150 + less]], other[misses[:150]] = False, True
        theirs.append(Decided(right, np.zeros(count, bool)))
        ours.append(Decided(other, np.zeros(count, bool)))
    found = gap("main", of, ours, theirs)
    assert found is not None
    assert found.mean == pytest.approx(-0.005 / 3)
    assert verdict(found) == "may be chance"


def test_words_of_intervals():
    small, large = 0.5 * MARGIN, 2 * MARGIN
    assert verdict(Interval(0.0, -small, small)) == "level"
    assert verdict(Interval(small / 2, small / 4, small)) == "level"
    assert verdict(Interval(0.0, -small, large)) == "may be chance"
    assert verdict(Interval(large, small, 2 * large)) == "better"
    assert verdict(Interval(-large, -2 * large, -small)) == "worse"
    assert signed(Interval(-0.041, -0.0801, -0.0004)) == "−4.1 (−8.0 to +0.0)"


@pytest.mark.parametrize("unknown", [1, 199])
def test_samples_without_a_known_or_an_unknown_image_are_left_out(unknown):
    numbers = np.random.default_rng(0)
    known = np.arange(200) >= unknown
    of = Truth(known, np.where(known, 0, UNKNOWN), np.arange(200))
    found = gap("main", of, [decided(numbers, of, 1.0)], [decided(numbers, of, 0.3)])
    assert found is not None
    assert np.isfinite([found.mean, found.low, found.high]).all()
