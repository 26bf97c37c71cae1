"""The benchmarks of views: rivals make the same, every number is measured, and differences are of pairs."""

from __future__ import annotations

import torch

from benchmarks import views, views_accuracy
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.views.colouring import brightness
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


def test_differences_are_of_the_same_seeds_with_students_interval() -> None:
    runs = {
        "kornia": {
            0: {"linear": 50.0, "kNN": 40.0, "all, s": 2.0},
            1: {"linear": 60.0, "kNN": 40.0, "all, s": 2.0},
        },
        "ours": {
            0: {"linear": 51.0, "kNN": 40.0, "all, s": 2.0},
            1: {"linear": 63.0, "kNN": 40.0, "all, s": 2.0},
            2: {"linear": 90.0, "kNN": 90.0, "all, s": 2.0},
        },
    }
    text = "\n".join(views_accuracy.table(runs))
    # Of 1 and 3 the mean is 2 and its standard error 1; t of one degree of freedom is 12.71.
    assert "ours - kornia, linear: +2.00 points, 95 % interval -10.71 to +14.71, 2 seeds" in text
    assert "| 2 |  |  | 90.0 | 90.0 |" in text
    assert views_accuracy.difference([1.0]) == "no interval: 1 seeds in both, two or more are needed"


def test_hue_in_yiq_leaves_brightness_alone() -> None:
    images = 0.4 + 0.2 * torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    turned = views_accuracy.turned_in_yiq(images, torch.linspace(-0.2, 0.2, 8))
    torch.testing.assert_close(brightness(turned), brightness(images), atol=1e-5, rtol=0)
    assert (turned - images).abs().mean() > 0.01
