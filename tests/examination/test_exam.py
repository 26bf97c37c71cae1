"""Retrieval, pointing, intervals, pairs and the controls, against slow references and against cheats."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from sslflow.audiovisual.maps import cosine_maps, enlarged, without_each_cell
from sslflow.audiovisual.method import find
from sslflow.audiovisual.windows import Windows
from sslflow.evaluation.intervals import crossed, interval, of_share, resampled, standard_error, wilson
from sslflow.evaluation.linear import fit_linear
from sslflow.evaluation.retrieval import chance, retrieval
from sslflow.examination.clips import exam as exams
from sslflow.examination.clips import shortcuts
from sslflow.examination.clips.pairs import (
    Pairs,
    _pairs,
    accuracies,
    by_conditions,
    with_other_moments,
    with_other_sources,
)
from sslflow.examination.clips.pointing import anywhere, centre, pointing
from sslflow.examination.clips.shortcuts import borders, conditions, likely_from, ranked, told_by
from sslflow.networks.encoder import Encoder
from tests.av_fixtures import FPS, RATE, SIDE, MemoryClips

# Retrieval


def slow_retrieval(scores: list[float], relevant: list[bool]) -> list[float]:
    """One query, the mean over all orders of the items that agree with the scores."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    found = []
    for order in orders:
        ranks = [rank for rank, item in enumerate(order, start=1) if relevant[item]]
        gained = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 30)
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(ranks), 30) + 1))
        found.append([*(float(ranks[0] <= depth) for depth in (1, 5, 10)), 1 / ranks[0], gained / ideal])
    return np.mean(found, axis=0).tolist()


@pytest.mark.parametrize("levels", [1, 2, 3, 100])
def test_retrieval_equals_the_mean_over_all_orders_of_ties(levels):
    numbers = np.random.default_rng(levels)
    for _ in range(12):
        scores = numbers.integers(levels, size=(1, 7)).astype(float)
        relevant = numbers.random((1, 7)) < 0.35
        relevant[0, numbers.integers(7)] = True
        kept = retrieval(scores, relevant)
        assert "r10" not in kept, "of seven items, one is always among the first ten"
        found = [kept.get(name, 1.0) for name in ("r1", "r5", "r10", "mrr", "ndcg30")]
        np.testing.assert_allclose(found, slow_retrieval(scores[0].tolist(), relevant[0].tolist()), rtol=1e-12)


def test_one_score_for_everything_is_chance():
    relevant = np.eye(40, dtype=bool)
    found = retrieval(np.full((40, 40), 3.5), relevant)
    assert found == chance(relevant)
    assert found["r1"] == pytest.approx(1 / 40)
    assert found["r10"] == pytest.approx(10 / 40)
    assert found["mrr"] == pytest.approx(np.mean(1 / np.arange(1, 41)))


def test_perfect_and_worst_rankings():
    relevant = np.eye(12, dtype=bool)
    assert set(retrieval(relevant.astype(float), relevant).values()) == {1.0}
    worst = retrieval(-relevant.astype(float), relevant)
    assert (worst["r1"], worst["r10"], worst["mrr"]) == (0.0, 0.0, pytest.approx(1 / 12))


def test_queries_without_an_answer_are_left_out_and_nan_is_an_error():
    relevant = np.array([[True, False], [False, False]])
    assert retrieval(np.array([[2.0, 1.0], [1.0, 2.0]]), relevant)["r1"] == 1.0
    assert retrieval(np.ones((2, 2)), np.zeros((2, 2), dtype=bool)) == {}
    with pytest.raises(ValueError, match="1 of 4 scores are not finite"):
        retrieval(np.array([[np.nan, 1.0], [1.0, 2.0]]), relevant)


# Intervals


def test_wilson_is_the_textbook_s():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson(1.0, 10)
    assert (low, high) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    assert wilson(0.0, 0) == (0.0, 1.0)


def test_answers_of_one_source_count_for_less():
    """Forty answers of four sources, each source all right or all wrong: no surer than four answers."""
    right, groups = np.repeat([1, 1, 1, 0], 10).astype(bool), np.repeat(np.arange(4), 10)
    clustered, alone = interval(right, groups), interval(right, np.arange(40))
    assert clustered[1] - clustered[0] > 1.8 * (alone[1] - alone[0])
    assert standard_error(right, groups) > 2.5 * standard_error(right, np.arange(40))
    assert standard_error(right, np.arange(40)) == pytest.approx((0.75 * 0.25 / 40) ** 0.5, rel=0.1)


def test_tiny_sets_have_wide_intervals_and_no_nan():
    assert interval(np.array([True]), np.array([0])) == wilson(1.0, 1)
    assert 0 < standard_error(np.array([True]), np.array([0])) < 1


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "groups"), [(1, 0, 8), (2, 0, 200), (2, 0.1, 200), (3, 0.1, 200), (5, 0.05, 6)]
)
def test_nineteen_of_twenty_intervals_hold_the_mean(seeds, of_seeds, groups):
    """Two methods that are equal but for chance: of the seed, of the group, of the answer."""
    numbers, held = np.random.default_rng(0), 0
    number = np.repeat(np.arange(groups), 2)
    for _ in range(400):
        group = numbers.normal(0, 0.5, groups)[number]
        values = numbers.normal(0, of_seeds, (seeds, 1)) + group + numbers.normal(0, 0.5, (seeds, 2 * groups))
        found = crossed(values, number)
        held += found.low <= 0 <= found.high
    assert held >= 0.93 * 400


@pytest.mark.parametrize("sources", [5, 8])
def test_intervals_over_few_sources_hold_the_share_as_often_as_they_say(sources):
    """Twenty answers of each source, which knows more or less than others."""
    numbers, held = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(sources), 20)
    for _ in range(1000):
        right = numbers.random(len(groups)) < numbers.beta(6, 4, sources)[groups]
        low, high = interval(right, groups)
        held += low <= 0.6 <= high
    assert held >= 0.93 * 1000


@pytest.mark.parametrize(("seeds", "things"), [(1, 1), (1, 12), (3, 12), (2, 400)])
def test_answers_that_are_all_the_same_are_not_sure_of_others(seeds, things):
    """Twelve right answers of twelve are as certain as Wilson's interval says, and a tie of few is no tie."""
    told = of_share(np.ones((seeds, things)), np.arange(things))
    assert told.high == told.mean == 1
    assert told.low == pytest.approx(wilson(1.0, things)[0])
    tie = crossed(np.zeros((seeds, things)), np.arange(things))
    assert not tie.sure
    assert (tie.high < 0.01) == (things == 400)
    drawn = resampled(lambda times: np.zeros((len(times), seeds)), np.arange(things))
    assert (drawn.low, drawn.high) == pytest.approx((tie.low, tie.high))


def test_interval_of_one_seed_over_independent_answers_is_the_textbook_s():
    values = np.random.default_rng(0).normal(size=(1, 30))
    low, high = stats.t.interval(0.95, 29, values.mean(), values.std(ddof=1) / 30**0.5)
    found = crossed(values, np.arange(30))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert crossed(np.ones((2, 3)), np.arange(3)).sure
    assert not crossed(np.zeros((2, 3)), np.arange(3)).sure


# Localisation


def test_pointing_shares_ties_and_reads_boxes_as_x_then_y():
    maps, boxes = np.zeros((2, 4, 4)), np.array([[0.5, 0.0, 1.0, 0.25], [0.0, 0.0, 0.5, 0.5]])
    maps[0, 0, 3] = 1  # row 0, column 3: x to the right, y at the top
    assert pointing(maps, boxes).tolist() == [1.0, 0.25]  # the second is flat: a quarter of all places
    assert pointing(maps.transpose(0, 2, 1), boxes)[0] == 0.0
    assert anywhere(boxes, 4).tolist() == [0.125, 0.25]


def test_centre_is_in_the_box_or_not():
    assert centre(np.array([[0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.4, 1.0]])).tolist() == [1.0, 0.0]


def test_enlarged_maps_keep_the_place_of_the_maximum():
    for row, column in itertools.product(range(4), range(4)):
        small = torch.zeros(1, 4, 4)
        small[0, row, column] = 1
        large = enlarged(small, 64)
        where = (large == large.amax()).nonzero()[:, 1:].float()
        # Four pixels meet in the middle of a cell; rounding may choose one of them.
        assert (where - torch.tensor([16 * row + 7.5, 16 * column + 7.5])).abs().max() <= 0.5


def test_leaving_out_a_cell_equals_doing_so_one_by_one():
    torch.manual_seed(0)
    maps, weights = torch.randn(3, 5, 2, 4), torch.randn(5)
    found = without_each_cell(maps, lambda means: (means @ weights).tanh())
    for i, row, column in itertools.product(range(3), range(2), range(4)):
        others = [maps[i, :, r, c] for r in range(2) for c in range(4) if (r, c) != (row, column)]
        left = (torch.stack(others).mean(dim=0) @ weights).tanh()
        assert found[i, row, column] == pytest.approx(
            float((maps[i].mean(dim=(1, 2)) @ weights).tanh() - left), abs=1e-6
        )


def test_cosine_maps_compare_each_cell_with_its_own_sound():
    cells, sounds = torch.randn(2, 3, 2, 2), torch.randn(2, 3)
    assert cosine_maps(cells, sounds)[1, 0, 1] == pytest.approx(float(cells[1, :, 0, 1] @ sounds[1]), abs=1e-6)


# Pairs and what must fail


def test_each_picture_and_each_sound_is_once_in_a_right_and_once_in_a_wrong_pair():
    sources = np.repeat(np.arange(7), [1, 4, 2, 3, 1, 2, 5])
    pairs = with_other_sources(sources, seed=0)
    assert torch.equal(pairs.pictures[pairs.same], pairs.sounds[pairs.same])
    wrong = ~pairs.same
    assert (sources[pairs.pictures[wrong]] != sources[pairs.sounds[wrong]]).all()
    for side in (pairs.pictures, pairs.sounds):
        assert sorted(side[wrong].tolist()) == sorted(side[pairs.same].tolist()) == list(range(len(sources)))


def test_one_source_has_no_wrong_pairs_of_sources_but_of_moments():
    assert len(with_other_sources(np.zeros(6, dtype=np.int64), seed=0).same) == 0
    pairs = with_other_moments(6)
    assert pairs.sounds[~pairs.same].tolist() == [1, 0, 3, 2, 5, 4]


def test_pairs_of_which_one_side_alone_tells_are_not_made():
    """As OpenL3's: what a wrong pair's sound is, is no right pair's."""
    with pytest.raises(AssertionError):
        _pairs(torch.arange(4), torch.tensor([4, 5, 6, 7]))
    with pytest.raises(AssertionError):
        _pairs(torch.arange(4), torch.tensor([1, 1, 3, 2]))


def test_classifiers_that_see_one_side_are_at_one_half_however_telling_it_is():
    numbers = torch.Generator().manual_seed(0)
    sources = np.repeat(np.arange(30), 2)
    pairs = with_other_sources(sources, seed=1)
    side = torch.randn(60, 8, generator=numbers)
    seen = side[pairs.pictures], pairs.same, sources[pairs.pictures]
    told = told_by(*seen, *seen, 0)
    assert told["accuracy"] == 0.5
    assert told["low"] < 0.5 < told["high"]


def test_what_conditions_are():
    frames = torch.full((3, 3, 10, 10), 90, dtype=torch.uint8)
    frames[0, :, :2] = 16
    frames[0, :, 9:] = 24
    frames[1, 2, :, :3] = 25  # blue is not black
    frames[2] = 0
    left, right, top, bottom = borders(frames).T
    assert [side.tolist() for side in (left, right, top, bottom)] == [
        pytest.approx(widths) for widths in ([0, 0, 1], [0, 0, 1], [0.2, 0, 1], [0.1, 0, 1])
    ]
    clips = MemoryClips(8)
    chosen = Windows(np.array([3, 0]), torch.tensor([0.5, 2.0]))
    times = np.arange(RATE) / RATE
    clips.sound[3, RATE // 2 : RATE // 2 + RATE] = 3276.8 * np.sin(2 * np.pi * 440 * times)
    clips.sound[0] = 0
    seen, heard = conditions(clips, chosen, 1.0)  # pyright: ignore[reportArgumentType]
    assert seen.tolist() == [[FPS, 0, 0, 0, 0]] * 2
    assert heard[:, 0].tolist() == [RATE, RATE]
    assert heard[0, 1:].tolist() == pytest.approx([-23.01, 440], abs=1)
    assert heard[1, 1:].tolist() == [pytest.approx(-100), 0]


def recordings(numbers: np.random.Generator, together: bool) -> tuple[tuple[torch.Tensor, torch.Tensor], np.ndarray]:
    """Windows of 80 sources, made with one of two cameras, which show it in their pictures, and with one of two
    microphones, which are heard; `together`: each camera has its own."""
    camera = numbers.integers(2, size=80).repeat(2)
    microphone = camera if together else numbers.integers(2, size=80).repeat(2)
    seen = np.stack([np.where(camera, 25.0, 29.97), 0.1 * numbers.random(160)], axis=1)
    heard = np.stack([np.where(microphone, 44100.0, 48000.0), numbers.normal(-20, 5, 160)], axis=1)
    return (torch.from_numpy(seen).float(), torch.from_numpy(heard).float()), np.arange(80).repeat(2)


@pytest.mark.parametrize("together", [True, False])
def test_recording_conditions_tell_pairs_where_they_go_together_and_only_there(together):
    numbers = np.random.default_rng(0)
    (train, of_train), (test, of_test) = (recordings(numbers, together) for _ in range(2))
    pairs = with_other_sources(of_train, 0), with_other_sources(of_test, 1)
    found = by_conditions((train, test), pairs, (of_train, of_test), 0)
    # Of wrong pairs half are of the other camera: 75 % is all that there is to know.
    assert (found["low"] > 0.6) == together
    assert (found["low"] < 0.5 < found["high"]) == (not together)


def test_recording_conditions_that_never_change_are_right_in_one_half():
    sources = np.arange(40)
    pairs = with_other_sources(sources, 0)
    same = torch.full((40, 5), 29.97), torch.full((40, 3), 48000.1)
    assert by_conditions((same, same), (pairs, pairs), (sources, sources), 0)["accuracy"] == 0.5


def test_the_strength_of_a_probe_is_chosen_on_other_sources(monkeypatch):
    clips, seen = MemoryClips(12), []
    views: Any = find("temporal_order").Views(clips.format)

    def fitted(features, labels, classes, seed, groups, **settings):
        seen.append((len(features), groups.tolist()))
        return fit_linear(features, labels, classes, seed, groups, **settings)

    monkeypatch.setattr(exams, "fit_linear", fitted)
    monkeypatch.setattr(shortcuts, "fit_linear", fitted)
    train = clips.rows("train")
    exam = exams.Exam(Any, views, clips, train, train, torch.device("cpu"), 0, exams.Examination())  # pyright: ignore[reportArgumentType]
    exams.probe(exam, Encoder(3, SIDE, name="resnet10", width=4, stem_stride=2), sound=False)
    assert seen == [(len(train), clips.groups[train].tolist())]
    pairs = with_other_sources(clips.groups[train], 0)
    side = torch.randn(len(train), 2)
    by_conditions([(side, side)] * 2, [pairs] * 2, [clips.groups[train]] * 2, 0)
    assert seen[1] == (2 * len(train), clips.groups[train][pairs.pictures].tolist())


def test_the_controls_find_pairs_that_give_themselves_away():
    """Wrong pairs made of windows that begin later, as OpenL3's were not: a classifier of the time alone knows them."""
    numbers = torch.Generator().manual_seed(0)
    own, others = torch.rand(200, generator=numbers), 0.5 + torch.rand(200, generator=numbers)
    same = torch.arange(400) < 200
    times = torch.cat([own, others])[:, None]
    told = told_by(times, same, np.arange(400), times, same, np.arange(400), 0)
    assert told["low"] > 0.6


def test_the_threshold_lies_where_either_kind_is_as_likely():
    numbers = torch.Generator().manual_seed(0)
    same = torch.arange(20000) < 10000
    scores = 7.0 + 0.1 * (torch.randn(20000, generator=numbers) + 2.0 * same)  # as likely from 7.1 on
    assert likely_from(scores, same) == pytest.approx(7.1, abs=0.005)
    apart = torch.where(same, 1.0, -1.0)
    assert likely_from(apart, same) == pytest.approx(0.0, abs=1e-3)
    assert likely_from(torch.full((4,), 3.0), torch.tensor([True, True, False, False])) == 3.0


def test_the_threshold_of_scores_that_tell_nothing_is_among_them():
    numbers = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores, same = torch.randn(60, generator=numbers), torch.randperm(60, generator=numbers) < 30
        assert scores.min() < likely_from(scores, same) < scores.max()


def test_area_under_the_curve_counts_ties_one_half():
    scores, same = torch.tensor([3.0, 2.0, 2.0, 1.0]), torch.tensor([True, True, False, False])
    assert ranked(scores, same) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert ranked(scores, torch.ones(4).bool()) == 0.5


def test_accuracy_among_other_classes_leaves_out_what_nobody_can_know():
    pairs = Pairs(torch.arange(4).repeat(2), torch.tensor([0, 1, 2, 3, 1, 0, 3, 2]), torch.arange(8) < 4)
    labels = np.array([0, 0, 0, 1])
    scores = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0])  # wrong on the pair of two clips of class 0
    found = accuracies(scores, pairs, 0.5, np.arange(4), labels, seed=0)
    assert found["accuracy"] == 0.75
    assert found["other_class"] == 1.0
    assert "other_class" not in accuracies(scores, pairs, 0.5, np.arange(4), np.full(4, -1), seed=0)
