"""Features that are too large to hold: the same numbers, a part at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sslflow.evaluation import linear
from sslflow.evaluation.bank import Bank
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.evaluation.same_class import find_same
from sslflow.runtime import parts
from tests.fakegpu import GPU, fake_gpu


def test_probes_find_the_same_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 5
    features = torch.randn(300, 12, generator=numbers) + torch.randn(5, 12, generator=numbers)[labels]
    queries = features[:60] + torch.randn(60, 12, generator=numbers)

    def found() -> tuple:
        fitted = fit_linear(features, labels, 5, 0, regularisation=(0.1, 0.01))
        same = find_same(features, labels, queries, labels[:60])
        return fitted, knn_predict(features, labels, queries, 5), same.average_precision, fitted.predict(queries)

    held = found()
    monkeypatch.setattr(parts, "HELD", 0)
    monkeypatch.setattr(parts, "PART", 4 * 12 * 37)
    parted = found()
    torch.testing.assert_close(parted[0].weight, held[0].weight, atol=1e-5, rtol=0)
    assert parted[0].validation_accuracy == held[0].validation_accuracy > 0.5
    assert parted[0].converged
    assert (parted[1] == held[1]).float().mean() > 0.98
    np.testing.assert_allclose(parted[2], held[2], atol=1e-4)
    assert torch.equal(parted[3], held[3])


@pytest.mark.parametrize("free", [0, 2**30])
def test_features_on_the_cpu_are_brought_to_a_gpu(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART", 4 * 12 * 37)
    with fake_gpu(free):
        features, labels = torch.randn(300, 12), torch.arange(300, device=GPU) % 5
        bank = Bank(features, GPU)
        assert bank.similarities(torch.randn(20, 12, device=GPU)).device == GPU
        assert knn_predict(features, labels, features, 5).device == GPU
        mean = torch.zeros(12, device=GPU)
        rows = linear._Rows(features, labels, torch.arange(300, device=GPU), mean, mean + 1)
        assert (rows._held is None) == (free == 0)
        assert {part.device for some in (rows, rows[20:]) for pair in some.parts(5) for part in pair} == {GPU}
        weight, bias = torch.zeros(12, 5, device=GPU), torch.zeros(5, device=GPU)
        assert linear.LinearProbe(weight, bias, mean, mean + 1, 0.1, 1.0, True).predict(features).device == GPU
