"""The benchmark of views: rivals make the same, and every number is measured."""

from __future__ import annotations

import torch

from benchmarks import views
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.views.images import TwoViews


def test_rivals_make_views_of_the_same_kind() -> None:
    fields = Fields(images=torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8))
    format = ImageFormat(3, 16, (0.5,) * 3, (0.25,) * 3)
    torch.manual_seed(0)
    ours, kornias = (torch.stack(kind(format)(fields)) for kind in (TwoViews, views.Kornias))
    assert ours.shape == kornias.shape == (2, 200, 3, 16, 16)
    assert abs(ours.mean() - kornias.mean()) < 0.1
    assert abs(ours.std() - kornias.std()) < 0.1


def test_all_three_are_measured() -> None:
    found = views.measured(16, 4, torch.device("cpu"), 1)
    assert set(found) == {"ours", "kornia", "step"}
    assert min(found.values()) > 0
