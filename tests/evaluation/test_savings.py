"""How many labels are saved at equal accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from sslflow.evaluation.savings import Curve, needed

IMAGES = np.arange(1000)


def curve(*points: tuple[int, float], seeds: int = 2, draws: int = 3, jitter: float = 0.0) -> Curve:
    """So many labels, right on such a share of the images, all the same ones first."""
    numbers = np.random.default_rng(0)
    shape = seeds, draws, 1
    return Curve(
        tuple(labels for labels, _ in points),
        tuple((1000 * (share + jitter * numbers.normal(size=shape)) > IMAGES) for _, share in points),
    )


OURS = curve((10, 0.5), (100, 0.7))


def test_twice_the_labels_for_the_same_accuracy():
    found = needed(curve((20, 0.5), (200, 0.7), (2000, 0.9)), OURS, 1, IMAGES)
    assert found.labels == pytest.approx(200)
    assert found.low <= 200 <= found.high
    between = needed(curve((10, 0.4), (1000, 0.8)), curve((50, 0.6)), 0, IMAGES)
    assert between.labels == pytest.approx(100), "half way, by the logarithm"


def test_what_never_gets_there_and_what_always_does():
    assert needed(curve((10, 0.1), (1000, 0.4)), OURS, 1, IMAGES).labels == np.inf
    assert needed(curve((10, 0.9)), OURS, 0, IMAGES).labels == 10
    falls = needed(curve((10, 0.6), (100, 0.4), (1000, 0.8)), OURS, 1, IMAGES)
    assert 100 < falls.labels < 1000


def test_draws_that_differ_widen_the_interval():
    steady = needed(curve((20, 0.5), (200, 0.7), (2000, 0.9)), OURS, 0, IMAGES)
    shaky = needed(curve((20, 0.5), (200, 0.7), (2000, 0.9), jitter=0.1), curve((10, 0.5), jitter=0.1), 0, IMAGES)
    assert shaky.high / shaky.low > 1.5 * steady.high / steady.low
    assert steady.low <= steady.labels <= steady.high
