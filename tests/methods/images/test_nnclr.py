"""NNCLR: its loss and its neighbours against slow references and lightly, and what it keeps in its queue."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.methods.images.nnclr import NNCLR, nearest, neighbour_nce
from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(9, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)


def cosine(one: Tensor, other: Tensor) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(float(a) ** 2 for a in one) * sum(float(b) ** 2 for b in other))


def slow_loss(neighbours: Tensor, predictions: Tensor, temperature: float) -> float:
    total = 0.0
    for i, neighbour in enumerate(neighbours):
        scores = [math.exp(cosine(neighbour, one) / temperature) for one in predictions]
        total -= math.log(scores[i] / sum(scores))
    return total / len(neighbours)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_equals_the_slow_reference(pair: tuple[Tensor, Tensor], temperature: float) -> None:
    assert float(neighbour_nce(*pair, temperature)) == pytest.approx(slow_loss(*pair, temperature), rel=1e-5)


def test_the_loss_equals_lightlys_with_the_other_images_of_the_batch_as_its_bank(pair: tuple[Tensor, Tensor]) -> None:
    from lightly.loss import NTXentLoss

    neighbours, predictions = (F.normalize(rows.float(), dim=1) for rows in pair)
    theirs = []
    for i in range(9):
        loss = NTXentLoss(temperature=0.2, memory_bank_size=(8, 5))
        loss.memory_bank.bank = torch.cat([predictions[:i], predictions[i + 1 :]])
        theirs.append(loss(neighbours[i : i + 1], predictions[i : i + 1]))
    torch.testing.assert_close(neighbour_nce(neighbours, predictions, 0.2), torch.stack(theirs).mean())


def test_one_answer_for_all_is_the_log_of_the_batch() -> None:
    same = torch.ones(8, 4)
    assert float(neighbour_nce(same, 3 * same, 0.1)) == pytest.approx(math.log(8), rel=1e-6)


def test_neighbours_equal_the_slow_reference_and_lightly(pair: tuple[Tensor, Tensor]) -> None:
    from lightly.models.modules.nn_memory_bank import NNMemoryBankModule

    vectors, earlier = (F.normalize(rows.float(), dim=1) for rows in pair)
    none = torch.arange(9), torch.arange(100, 109)
    found = nearest(vectors, none[0], earlier, none[1])
    for vector, other in zip(vectors, found, strict=True):
        assert torch.equal(other, max(earlier, key=lambda one: cosine(vector, one)))
    theirs = NNMemoryBankModule(size=(9, 5))
    theirs.bank = earlier
    torch.testing.assert_close(found, theirs(vectors))


def test_an_image_is_its_own_neighbour_only_where_there_is_no_other() -> None:
    vectors = torch.eye(3)
    earlier, rows = torch.eye(3) + 0.1, torch.arange(3)
    found = nearest(vectors, rows, F.normalize(earlier, dim=1), rows)
    assert (found.argmax(dim=1) != rows).all()
    alone = nearest(vectors[:1], rows[:1], earlier[:1], rows[:1])
    assert torch.equal(alone, earlier[:1])


def made(queue: int) -> NNCLR:
    torch.manual_seed(0)
    return NNCLR(
        Encoder(1, 28, name="resnet10", width=4, stem_stride=2), projector=(8, 6), predictor=5, queue=queue
    ).eval()


def a_batch(seed: int, rows: range) -> Batch:
    first, second = torch.rand(2, len(rows), 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    return Batch((first, second), torch.tensor(rows), progress=0.0)


def test_neighbours_are_of_earlier_steps_and_both_directions_count() -> None:
    method, first, second = made(queue=10), a_batch(0, range(6)), a_batch(1, range(6, 12))
    method.training_step(first)
    with torch.no_grad():
        held = F.normalize(method.projector(method.encoder(first.views[0])), dim=1)
        assert torch.equal(method.queue.rows.sort().values, torch.tensor([0, 1, 2, 3, 4, 5, *range(4)]).sort().values)
        za, zb = (method.projector(method.encoder(view)) for view in second.views)
        pa, pb = method.predictor(za), method.predictor(zb)
        na, nb = (torch.stack([max(held, key=lambda one: cosine(z, one)) for z in zs]) for zs in (za, zb))
    loss = method.training_step(second)["loss"]
    expected = (slow_loss(na, pb, method.temperature) + slow_loss(nb, pa, method.temperature)) / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert set(range(6, 12)) <= set(method.queue.rows.tolist())
    loss.backward()  # which still needs the queue as it was
