"""Retrieval by class: against slow references, ties as chance has them, and never a whole table."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from sslflow.evaluation import same_class
from sslflow.evaluation.same_class import find_same


def made(
    bank: int = 60, queries: int = 17, classes: int = 4, dim: int = 5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    labels = [torch.randint(classes, (count,), generator=draw) for count in (bank, queries)]
    features = [torch.randn(count, dim, generator=draw) for count in (bank, queries)]
    return features[0], labels[0], features[1], labels[1]


def slow(order: np.ndarray, relevant: np.ndarray) -> tuple[float, ...]:
    """Average precision and hits of one ranking, place by place."""
    met, precisions = 0, []
    for place, item in enumerate(order, start=1):
        if relevant[item]:
            met += 1
            precisions.append(met / place)
    first = [float(relevant[order[:depth]].any()) for depth in same_class.DEPTHS]
    return (sum(precisions) / len(precisions) if precisions else 0.0), *first


def test_without_ties_it_is_the_usual_average_precision_and_recall():
    bank, bank_labels, queries, labels = made()
    found = find_same(bank, bank_labels, queries, labels)
    scores = (F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T).numpy()
    for number, row in enumerate(scores):
        relevant = (bank_labels == labels[number]).numpy()
        precision, *hits = slow(np.argsort(-row), relevant)
        assert found.average_precision[number] == pytest.approx(precision)
        assert found.average_precision[number] == pytest.approx(average_precision_score(relevant, row))
        assert [found.recall[depth][number] for depth in same_class.DEPTHS] == hits


def test_a_tie_is_the_mean_over_all_its_orders():
    """Seven images, six of which stand at two distances: all orders of each, one after another."""
    bank = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [-1, 0]])
    bank_labels = torch.tensor([0, 1, 1, 1, 0, 1, 0])
    found = find_same(bank, bank_labels, torch.tensor([[2.0, 1.0]] * 2), torch.tensor([0, 1]))
    for label in (0, 1):
        relevant = (bank_labels == label).numpy()
        orders = [
            np.array([*first, *second, 6])
            for first in itertools.permutations(range(3))
            for second in itertools.permutations(range(3, 6))
        ]
        precision, *hits = np.mean([slow(order, relevant) for order in orders], axis=0)
        assert found.average_precision[label] == pytest.approx(precision)
        assert [found.recall[depth][label] for depth in same_class.DEPTHS] == pytest.approx(hits)


def test_features_that_are_all_alike_are_as_good_as_chance_in_whatever_order_images_lie():
    labels = torch.tensor([0] * 5 + [1] * 15)
    found = find_same(torch.ones(20, 3), labels, torch.ones(2, 3), torch.tensor([0, 1]))
    assert found.recall[1] == pytest.approx([0.25, 0.75])
    assert find_same(torch.ones(20, 3), labels.flip(0), torch.ones(1, 3), labels[:1]).average_precision == (
        pytest.approx(found.average_precision[:1])
    )


def test_a_table_in_parts_is_the_same():
    whole, parts = find_same(*made()), find_same(*made(), 130)
    assert (whole.average_precision == parts.average_precision).all()
    assert all((whole.recall[depth] == parts.recall[depth]).all() for depth in same_class.DEPTHS)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(("place", "name"), [(0, "bank"), (2, "queries")])
def test_features_that_are_not_finite_are_refused(place, name, value):
    """Each comparison with one is false, so that it would be found, and would find, for certain."""
    given = made()
    given[place][3, 1] = value
    with pytest.raises(ValueError, match=f"{name}: the features of 1 of {len(given[place])} examples are not finite"):
        find_same(*given)


def test_what_the_bank_has_none_of_is_not_found_and_a_small_bank_has_no_depth():
    found = find_same(torch.eye(3), torch.tensor([0, 1, 1]), torch.eye(3), torch.tensor([0, 1, 2]))
    assert found.average_precision == pytest.approx([1, 5 / 6, 0], abs=0.2)
    assert found.average_precision[2] == found.recall[1][2] == 0
    assert set(found.recall) == {1}
