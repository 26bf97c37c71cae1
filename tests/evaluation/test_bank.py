"""Features that are too large to hold: the same numbers, a part at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sslflow.evaluation import bank, linear
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.evaluation.same_class import find_same


def test_probes_find_the_same_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 5
    features = torch.randn(300, 12, generator=numbers) + torch.randn(5, 12, generator=numbers)[labels]
    queries = features[:60] + torch.randn(60, 12, generator=numbers)

    def found() -> tuple:
        fitted = fit_linear(features, labels, 5, 0, regularisation=(0.1, 0.01))
        same = find_same(features, labels, queries, labels[:60])
        return fitted, knn_predict(features, labels, queries, 5), same.average_precision

    held = found()
    for module in (bank, linear):
        monkeypatch.setattr(module, "HELD", 0)
        monkeypatch.setattr(module, "PART", 12 * 37)
    parts = found()
    torch.testing.assert_close(parts[0].weight, held[0].weight, atol=1e-5, rtol=0)
    assert parts[0].validation_accuracy == held[0].validation_accuracy > 0.5
    assert parts[0].converged
    assert (parts[1] == held[1]).float().mean() > 0.98
    np.testing.assert_allclose(parts[2], held[2], atol=1e-4)
