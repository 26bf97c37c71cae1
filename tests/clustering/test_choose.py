"""Which images to label next."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from sslflow.clustering.choose import covering, typical


def blobs(*sizes: int, spread: float = 0.05) -> torch.Tensor:
    """Points around directions that stand apart, a blob after the other."""
    torch.manual_seed(0)
    centres = torch.eye(8)[: len(sizes)]
    return torch.cat([centres[n] + spread * torch.randn(size, 8) for n, size in enumerate(sizes)])


def test_one_typical_image_of_every_group_the_largest_first():
    features = blobs(40, 80, 60)
    chosen = typical(features, 3, 0)
    assert [int(row) // 40 if row < 40 else 1 if row < 120 else 2 for row in chosen] == [1, 2, 0]
    points = normalize(features, dim=1)
    own = points[40:120]
    nearest = (own @ own.T).topk(21).values[:, 1:].mean(dim=1)
    assert int(chosen[0]) == 40 + int(nearest.argmax()), "in the densest place of its group"


def test_groups_with_labels_come_last():
    features = blobs(40, 80, 60)
    chosen = typical(features, 2, 0, known=torch.tensor([50]))
    assert int(chosen[0]) >= 120
    assert int(chosen[1]) < 40


@pytest.mark.parametrize("choose", [lambda rows, budget, known=None: typical(rows, budget, 0, known), covering])
def test_nothing_twice_nothing_labelled_and_all_where_all_are_asked_for(choose):
    features, known = blobs(10, 5, 5), torch.tensor([0, 3, 12])
    chosen = choose(features, 17, known=known)
    assert sorted(chosen.tolist()) == sorted(set(range(20)) - {0, 3, 12})
    with pytest.raises(ValueError, match="17 images have no label: 18 of them"):
        choose(features, 18, known=known)
    equal = choose(torch.ones(6, 4), 4)
    assert len(set(equal.tolist())) == 4


def test_covering_takes_what_is_furthest_from_all_that_is_known():
    features = blobs(30, 30, 1)
    chosen = covering(features, 3)
    assert {60} < set(chosen.tolist())
    slow = _slow(features, 7, [2, 40])
    assert covering(features, 7, torch.tensor([2, 40])).tolist() == slow


def _slow(features, budget, known):
    points = normalize(features, dim=1)
    chosen = list(known)
    for _ in range(budget):
        distances = [min(float(1 - points[row] @ points[one]) for one in chosen) for row in range(len(points))]
        chosen.append(max((row for row in range(len(points)) if row not in chosen), key=lambda row: distances[row]))
    return chosen[len(known) :]
