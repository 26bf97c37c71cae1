"""Losses against slow references written from the papers, against lightly, and against their own invariances."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslflow.methods.images import moco_v3
from sslflow.methods.images.barlow_twins import barlow_terms
from sslflow.methods.images.rotation import rotations
from sslflow.methods.images.simclr import SimCLR, nt_xent
from sslflow.methods.images.supervised import Supervised
from sslflow.methods.images.vicreg import vicreg_terms
from sslflow.networks import queue
from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch, Choices, chance_level


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(12, 5, dtype=torch.float64), torch.randn(12, 5, dtype=torch.float64)


def slow_nt_xent(za, zb, temperature):
    z = [row / row.norm() for row in [*za, *zb]]
    n, total = len(za), 0.0
    for i, anchor in enumerate(z):
        partner = (i + n) % (2 * n)
        others = sum(math.exp(float(anchor @ z[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(float(anchor @ z[partner]) / temperature) / others)
    return total / (2 * n)


def slow_dcl(za, zb, temperature):
    z = [row / row.norm() for row in [*za, *zb]]
    n, total = len(za), 0.0
    for i, anchor in enumerate(z):
        partner = (i + n) % (2 * n)
        others = sum(math.exp(float(anchor @ z[k]) / temperature) for k in range(2 * n) if k not in (i, partner))
        total += math.log(others) - float(anchor @ z[partner]) / temperature
    return total / (2 * n)


def slow_barlow_terms(za, zb):
    n, dim = za.shape
    on, off = 0.0, 0.0
    for i in range(dim):
        for j in range(dim):
            a = [(float(za[k, i]) - float(za[:, i].mean())) for k in range(n)]
            b = [(float(zb[k, j]) - float(zb[:, j].mean())) for k in range(n)]
            scale = math.sqrt((sum(x * x for x in a) / n + 1e-5) * (sum(x * x for x in b) / n + 1e-5))
            c = sum(x * y for x, y in zip(a, b, strict=True)) / n / scale
            on, off = (on + (1 - c) ** 2, off) if i == j else (on, off + c * c)
    return on, off


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_equals_the_slow_reference(pair, temperature):
    za, zb = pair
    assert float(nt_xent(za, zb, temperature)) == pytest.approx(slow_nt_xent(za, zb, temperature), rel=1e-5)


def test_nt_xent_equals_lightly(pair):
    from lightly.loss import NTXentLoss

    za, zb = (z.float() for z in pair)
    torch.testing.assert_close(nt_xent(za, zb, 0.2), NTXentLoss(temperature=0.2)(za, zb), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_decoupled_loss_equals_the_slow_reference_and_lightly(pair, temperature):
    from lightly.loss import DCLLoss

    za, zb = pair
    found = nt_xent(za, zb, temperature, decoupled=True)
    assert float(found) == pytest.approx(slow_dcl(za, zb, temperature), rel=1e-5)
    za, zb = za.float(), zb.float()
    theirs = DCLLoss(temperature=temperature)(za, zb)
    torch.testing.assert_close(nt_xent(za, zb, temperature, decoupled=True), theirs, rtol=1e-5, atol=1e-5)


def test_the_decoupled_loss_pulls_where_the_other_has_nothing_left_to_do():
    za = torch.eye(6, dtype=torch.float64, requires_grad=True)
    zb = torch.eye(6, dtype=torch.float64) + 0.1
    (coupled,) = torch.autograd.grad(nt_xent(za, zb, 0.02), za)
    (apart,) = torch.autograd.grad(nt_xent(za, zb, 0.02, decoupled=True), za)
    assert coupled.norm() < 1e-3 * apart.norm()


def test_the_decoupled_loss_of_identical_projections_is_the_log_of_the_others():
    same = torch.ones(8, 4)
    assert float(nt_xent(same, same, 0.1, decoupled=True)) == pytest.approx(math.log(14), rel=1e-6)
    method = SimCLR(Encoder(1, 28, name="resnet10", width=4, stem_stride=2), projector=(8,), decoupled=True)
    assert method.choices(8) == Choices(14, "views of the batch")


def test_nt_xent_ignores_the_length_of_projections_and_the_order_of_views(pair):
    za, zb = pair
    loss = nt_xent(za, zb, 0.2)
    torch.testing.assert_close(nt_xent(3 * za, 0.5 * zb, 0.2), loss)
    torch.testing.assert_close(nt_xent(zb, za, 0.2), loss)


def test_nt_xent_of_identical_projections_is_the_log_of_the_candidates():
    same = torch.ones(8, 4)
    assert float(nt_xent(same, same, 0.1)) == pytest.approx(math.log(15), rel=1e-6)


def test_barlow_equals_the_slow_reference(pair):
    on, off = barlow_terms(*pair)
    assert (float(on), float(off)) == pytest.approx(slow_barlow_terms(*pair), rel=1e-5)


def test_barlow_equals_lightly(pair):
    from lightly.loss import BarlowTwinsLoss

    za, zb = (z.float() for z in pair)
    on, off = barlow_terms(za, zb)
    torch.testing.assert_close(on + 5e-3 * off, BarlowTwinsLoss(lambda_param=5e-3)(za, zb), rtol=1e-4, atol=1e-5)


def test_barlow_is_nearly_zero_for_equal_views_with_independent_dimensions():
    z = torch.linalg.qr(torch.randn(64, 4, dtype=torch.float64))[0]
    z = torch.linalg.qr(z - z.mean(dim=0))[0]
    on, off = barlow_terms(1000 * z, 1000 * z)
    assert float(on + off) < 1e-6


@pytest.mark.parametrize(
    "loss",
    [lambda a, b: nt_xent(a, b, 0.3), lambda a, b: nt_xent(a, b, 0.3, True), lambda a, b: sum(barlow_terms(a, b))],
)
def test_gradients(pair, loss, monkeypatch):
    # The losses work in float32 for the sake of half precision; a numerical gradient needs float64.
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    za, zb = (z[:6].requires_grad_() for z in pair)
    assert torch.autograd.gradcheck(loss, (za, zb))


def test_rotations_move_pixels_exactly():
    images = torch.arange(2 * 1 * 4 * 4).float().view(2, 1, 4, 4)
    turned, turns = rotations(images)
    assert turns.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(turned[:2], images)
    for image, number in zip(turned, turns.tolist(), strict=True):
        assert torch.equal(torch.rot90(image, 4 - number, (1, 2)), images[int(image.min()) // 16])


@pytest.mark.parametrize("name", ["simclr", "moco_v2", "moco_v3", "barlow_twins", "vicreg"])
def test_losses_are_worked_out_in_float32_under_autocast(name):
    torch.manual_seed(0)
    za, zb, earlier = torch.randn(3, 64, 16).bfloat16()
    earlier = F.normalize(earlier.float(), dim=1)

    def loss(a, b):
        if name == "simclr":
            return nt_xent(a, b, 0.1)
        if name == "moco_v2":
            return queue.info_nce(a, F.normalize(b.float(), dim=1), earlier, torch.zeros(64, 64).bool(), 0.1)
        if name == "moco_v3":
            return moco_v3.info_nce(a, b, 0, 0.1)
        return torch.stack(list(barlow_terms(a, b) if name == "barlow_twins" else vicreg_terms(a, b).values()))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(za, zb)
    torch.testing.assert_close(found, loss(za.float(), zb.float()), rtol=1e-6, atol=1e-6)


# Chance level


def test_chance_level_is_the_cost_of_the_shares():
    answers = torch.tensor([0, 0, 2, -1])
    found = chance_level(answers, torch.tensor([0.5, 0.0, 0.5]))
    assert float(found["chance_loss"]) == pytest.approx(math.log(2))
    assert float(found["chance_accuracy"]) == pytest.approx(0.5)  # as for `accuracy`, what has no label is not right
    skewed = chance_level(answers, torch.tensor([0.1, 0.6, 0.3]))
    assert float(skewed["chance_loss"]) == pytest.approx(-(2 * math.log(0.1) + math.log(0.3)) / 3)
    assert float(skewed["chance_accuracy"]) == 0.0


def test_no_constant_answer_to_labels_costs_less_than_chance_level():
    torch.manual_seed(0)
    labels = torch.tensor([3, 0, 0, 0, 0, 0, 1, 3, 0, 0, -1, 0])
    method = Supervised(Encoder(1, 28, name="resnet10", width=4, stem_stride=2), labels)
    (classifier,) = method.classifiers
    assert isinstance(classifier, torch.nn.Linear)
    torch.nn.init.zeros_(classifier.weight)
    batch = Batch((torch.rand(12, 1, 28, 28),), torch.arange(12), progress=0.0)
    optimizer = torch.optim.Adam([classifier.bias], lr=0.3)
    for _ in range(200):
        losses = method.training_step(batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert float(losses["loss"].detach()) == pytest.approx(float(losses["chance_loss"]), abs=1e-3)
    entropy = -sum(share * math.log(share) for share in (8 / 11, 1 / 11, 2 / 11))
    assert float(losses["chance_loss"]) == pytest.approx(entropy)
    assert float(losses["accuracy"]) == float(losses["chance_accuracy"]) == pytest.approx(8 / 12)
