"""Planted groups are found, and no more of them than there are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import silhouette_score
from torch import Tensor

from sslflow.clustering import groups as module
from sslflow.clustering.agreement import agreement
from sslflow.clustering.groups import discover, silhouette


def planted(sizes: list[int], spread: float = 0.1, seed: int = 0, first: int = 0) -> tuple[Tensor, Tensor]:
    """Rows around axes of a space, from axis `first` on, in mixed order and of any length; and their axes."""
    numbers = torch.Generator().manual_seed(seed)
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    groups = groups[torch.randperm(len(groups), generator=numbers)]
    rows = F.one_hot(groups + first, 16) + spread * torch.randn(len(groups), 16, generator=numbers)
    return rows * (0.2 + 5 * torch.rand(len(rows), 1, generator=numbers)), groups


KNOWN, CLASSES = planted([40, 25, 30], seed=1, first=10)


@pytest.mark.parametrize("sizes", [[50, 20], [30, 60, 20], [25, 15, 40, 10, 20], [20, 30, 15, 10, 12, 18, 25, 22]])
@pytest.mark.parametrize("beside", [(), (KNOWN, CLASSES)])
def test_planted_groups_are_found_exactly(sizes: list[int], beside: tuple[Tensor, ...]):
    features, groups = planted(sizes)
    found = discover(features, 0, *beside, most=12, restarts=2)
    assert found.count == len(sizes) == max(found.score, key=found.score.__getitem__)
    # The largest group is number 0, and so on.
    expected = torch.tensor(sizes).argsort(descending=True).argsort()[groups]
    assert torch.equal(found.labels, expected)
    assert torch.equal(found.labels.bincount(), torch.tensor(sorted(sizes, reverse=True)))
    towards = F.normalize(features, dim=1) @ found.centroids.T
    assert torch.equal(towards.argmax(dim=1), found.labels)
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(len(sizes)))


@pytest.mark.parametrize("seed", range(4))
def test_one_group_is_one_beside_known_classes(seed: int):
    found = discover(planted([60], seed=seed)[0], 0, KNOWN, CLASSES, most=8, restarts=2)
    assert (found.count, found.labels.tolist()) == (1, [0] * 60)
    assert list(found.score) == list(range(1, 9))


def test_known_classes_say_how_fine_a_class_is():
    """Two pairs of groups: where known classes lie as near as those of a pair do, there are four of them."""
    axes = torch.eye(16)
    pairs = torch.stack([axes[0] + 0.5 * axes[1], axes[0] - 0.5 * axes[1], axes[2] + 0.5 * axes[3],
                         axes[2] - 0.5 * axes[3]])  # fmt: skip
    groups, numbers = torch.arange(4).repeat_interleave(30), torch.Generator().manual_seed(0)
    rows = pairs[groups] + 0.17 * torch.randn(120, 16, generator=numbers)
    beyond = rows.roll(8, dims=1)
    found = [discover(rows, 0, beyond, classes, most=8, restarts=2).count for classes in (groups, groups // 2)]
    assert discover(rows, 0, most=8, restarts=2).count == 2
    assert found == [4, 2]


def test_real_classes_are_told_apart_better_than_by_chance(fashion):
    images, labels = (torch.from_numpy(part) for part in fashion)
    features = images.flatten(1).float()[:, ::3]
    unknown = (labels == 1) | (labels == 7) | (labels == 8)  # trousers, trainers, bags
    found = discover(features[unknown], 0, features[~unknown], labels[~unknown], most=10, restarts=2)
    assert abs(found.count - 3) <= 1
    assert agreement(labels[unknown].numpy(), found.labels.numpy())["nmi"] > 0.6


def test_the_same_from_the_same_seed(fashion):
    features = torch.from_numpy(fashion[0][:200]).flatten(1)[:, ::5].float()
    first, second, other = (discover(features, seed, most=6, restarts=1) for seed in (5, 5, 6))
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.centroids, second.centroids)
    assert first.score == second.score != other.score


def test_lengths_do_not_matter(fashion):
    features = torch.from_numpy(fashion[0][:100]).flatten(1)[:, ::5].float()
    powers = torch.tensor([0.25, 1.0, 4.0]).repeat(34)[:100, None]  # they change no bit of a direction
    plain, stretched = (discover(rows, 0, most=5, restarts=1) for rows in (features, powers * features))
    assert torch.equal(plain.labels, stretched.labels)


@pytest.mark.parametrize("beside", [(), (KNOWN, CLASSES)])
def test_none_one_and_two_rows(beside: tuple[Tensor, ...]):
    for rows in range(3):
        found = discover(planted([3])[0][:rows], 0, *beside)
        assert (found.count, found.labels.tolist()) == (min(rows, 1), [0] * rows)
        assert found.labels.dtype == torch.int64
        assert found.centroids.shape == (min(rows, 1), 16)
        assert list(found.score) == ([1] if beside and rows else [])


@pytest.mark.parametrize("beside", [(), (KNOWN, CLASSES)])
def test_identical_rows(beside: tuple[Tensor, ...]):
    row = planted([1])[0]
    found = discover(row.repeat(20, 1), 0, *beside)
    assert (found.count, found.labels.tolist()) == (1, [0] * 20)
    few = torch.cat([row, -row, row.roll(1)]).repeat_interleave(torch.tensor([5, 9, 7]), dim=0)
    found = discover(few, 0, *beside)
    assert found.count == 3
    assert found.labels.tolist() == [2] * 5 + [0] * 9 + [1] * 7
    assert max(found.score) == 3


def test_no_more_groups_than_asked_for_or_than_rows():
    features, _ = planted([20, 20, 20, 20])
    assert set(discover(features, 0, most=3, restarts=1).score) == {2, 3}
    assert discover(features, 0, most=1, restarts=1).count == 1
    assert set(discover(features[:6], 0, restarts=1).score) == {2, 3, 4, 5}


def test_all_rows_are_grouped_where_a_sample_chose_how_many(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 60)
    features, groups = planted([200, 80, 120])
    found = discover(features, 0, KNOWN, CLASSES, most=6, restarts=2)
    assert found.labels.tolist() == torch.tensor([0, 2, 1])[groups].tolist()


@pytest.mark.parametrize("classes", [2, 7])
def test_silhouette_is_scikit_learn_s(classes: int):
    numbers = torch.Generator().manual_seed(classes)
    points = F.normalize(torch.randn(80, 5, generator=numbers, dtype=torch.float64), dim=1)
    labels = 2 * torch.randint(classes, (80,), generator=numbers)  # numbers without rows between them
    labels[3] = 99  # alone
    distances = (1 - points @ points.T).clamp(min=0).fill_diagonal_(0)
    expected = silhouette_score(distances.numpy(), labels.numpy(), metric="precomputed")
    assert silhouette(distances, labels) == pytest.approx(expected, abs=1e-12)


def test_what_cannot_be_grouped_is_refused():
    features = planted([10, 10])[0]
    with pytest.raises(ValueError, match="come together"):
        discover(features, 0, KNOWN)
    with pytest.raises(ValueError, match=r"known has shape \(95, 15\): expected \(95, 16\)"):
        discover(features, 0, KNOWN[:, 1:], CLASSES)
    with pytest.raises(ValueError, match=r"known has shape \(95, 16\): expected \(94, 16\)"):
        discover(features, 0, KNOWN, CLASSES[1:])
    wrong = KNOWN.clone()
    wrong[4, 4] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        discover(features, 0, wrong, CLASSES)
    with pytest.raises(ValueError, match="not finite"):
        discover(wrong, 0)
