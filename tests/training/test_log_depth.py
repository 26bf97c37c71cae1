from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sslflow.training.log_depth import scale_invariant


def slow(told: Tensor, true: Tensor, known: Tensor, invariance: float) -> float:
    """The paper's other form: a sum over pairs of pixels, whose relation counts, beside one over pixels."""
    total = 0.0
    for mine, right, there in zip(told, true, known, strict=True):
        own = [float(a - b) for a, b, k in zip(mine.flatten(), right.flatten(), there.flatten(), strict=True) if k]
        n = len(own)
        if n:
            pairs = sum((a - b) ** 2 for a in own for b in own) / (2 * n * n)
            total += (1 - invariance) * sum(a * a for a in own) / n + invariance * pairs
    return total / len(told)


def some() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    told, true = torch.randn(3, 1, 4, 5, dtype=torch.float64), torch.randn(3, 1, 4, 5, dtype=torch.float64)
    known = (torch.rand(3, 1, 4, 5) < 0.7).double()
    known[2] = 0
    return told, true, known


@pytest.mark.parametrize("invariance", [0.0, 0.5, 1.0])
def test_the_error_is_that_of_pixels_and_of_pairs_of_pixels(invariance: float) -> None:
    assert float(scale_invariant(*some(), invariance)) == pytest.approx(slow(*some(), invariance), rel=1e-12)


def test_another_scale_is_free_with_all_of_it_and_counts_in_full_without() -> None:
    told, true, known = some()
    before = scale_invariant(told, true, known, 1.0)
    assert torch.allclose(scale_invariant(told + 0.7, true, known, 1.0), before)
    assert float(scale_invariant(true + 0.5, true, known, 0.0)) == pytest.approx(0.25 * 2 / 3)
    assert float(scale_invariant(true + 0.5, true, known, 0.5)) == pytest.approx(0.125 * 2 / 3)


def test_what_is_not_known_does_not_count() -> None:
    told, true, known = some()
    other = torch.where(known > 0, told, 1e3)
    assert torch.equal(scale_invariant(other, true, known, 0.5), scale_invariant(told, true, known, 0.5))
    assert not scale_invariant(told[2:], true[2:], known[2:], 0.5)


def test_its_gradient_is_right() -> None:
    told, true, known = some()
    assert torch.autograd.gradcheck(lambda one: scale_invariant(one, true, known, 0.5), told.requires_grad_())
