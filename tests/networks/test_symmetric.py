from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sslflow.networks.symmetric import symmetric_info_nce


def slow(za: Tensor, zb: Tensor, scale: float, same: Tensor) -> float:
    """One pair after the other, in plain numbers."""
    total, n = 0.0, len(za)
    for ours, theirs, hidden in ((za, zb, same), (zb, za, same.T)):
        for i in range(n):
            cosine = [float(ours[i] @ other / (ours[i].norm() * other.norm())) for other in theirs]
            among = [math.exp(scale * cosine[j]) for j in range(n) if j == i or not hidden[i, j]]
            total -= math.log(math.exp(scale * cosine[i]) / sum(among))
    return total / (2 * n)


def some(n: int = 7) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, 5, dtype=torch.float64), torch.randn(n, 5, dtype=torch.float64)


def test_the_loss_is_what_plain_sums_give() -> None:
    za, zb = some()
    same = torch.rand(7, 7) < 0.3
    assert not torch.equal(same, same.T)
    nothing = torch.zeros(7, 7, dtype=torch.bool)
    assert float(symmetric_info_nce(za, zb, 4.0, same)) == pytest.approx(slow(za, zb, 4.0, same), rel=1e-12)
    assert float(symmetric_info_nce(za, zb, 4.0)) == pytest.approx(slow(za, zb, 4.0, nothing), rel=1e-12)
    assert float(symmetric_info_nce(zb, za, 4.0)) == pytest.approx(float(symmetric_info_nce(za, zb, 4.0)), rel=1e-12)


def test_chance_is_the_logarithm_of_the_pairs_and_lengths_do_not_matter() -> None:
    za, zb = some()
    assert float(symmetric_info_nce(torch.ones(7, 3), torch.ones(7, 3), 10.0)) == pytest.approx(math.log(7))
    assert float(symmetric_info_nce(3 * za, zb / 2, 4.0)) == pytest.approx(float(symmetric_info_nce(za, zb, 4.0)))


def test_what_is_the_same_is_no_wrong_answer() -> None:
    """Two captions that are equal: the loss can fall to 0 only where they don't stand against each other."""
    z = torch.eye(4, dtype=torch.float64)
    twice = torch.cat([z, z])
    same = torch.eye(4, dtype=torch.bool).repeat(2, 2)
    assert float(symmetric_info_nce(twice, twice, 50.0, same)) == pytest.approx(0, abs=1e-12)
    assert float(symmetric_info_nce(twice, twice, 50.0)) == pytest.approx(math.log(2))


def test_its_gradients_are_right_that_of_the_scale_too() -> None:
    za, zb = (z.requires_grad_() for z in some(4))
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 2] = True
    assert torch.autograd.gradcheck(lambda a, b, s: symmetric_info_nce(a, b, s, same), (za, zb, scale))
