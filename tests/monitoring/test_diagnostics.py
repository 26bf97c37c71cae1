"""Signs of health: each against a slow reference, and on features that are degenerate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sslflow.data.dataset import Dataset
from sslflow.methods.images.byol import BYOL
from sslflow.methods.images.mae import MAE
from sslflow.methods.images.rotation import Rotation
from sslflow.methods.images.simclr import SimCLR
from sslflow.monitoring.diagnostics import alignment, alpha_req, feature_std, rankme, uniformity
from sslflow.monitoring.watch import Watch
from sslflow.networks.encoder import Encoder
from sslflow.runtime.rng import derive
from sslflow.settings.sections import KINDS
from sslflow.training.fit import fit
from sslflow.training.method import Method, names
from sslflow.training.run import first_row, row
from tests.cases import make

CPU = torch.device("cpu")
SETTINGS = {"epochs": 2, "batch_size": 40, "lr": 1e-3}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_spectrum(variances: torch.Tensor, images: int, dim: int) -> torch.Tensor:
    """Features around a mean that is not 0, with just these variances along their principal directions."""
    rotated = torch.cat([torch.ones(images, 1), normal(images, len(variances))], dim=1).double()
    left = torch.linalg.qr(rotated)[0][:, 1:]  # at right angles to what is the same for all
    right = torch.linalg.qr(normal(dim, len(variances), seed=1).double())[0]
    return ((left * variances.double().sqrt()) @ right.T * images**0.5 + 3).float()


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("images", "dim"), [(200, 32), (200, 199), (40, 64)])
def test_alpha_of_a_power_law_is_its_exponent(a, images, dim):
    directions = min(images - 1, dim)
    features = with_spectrum(torch.arange(1, directions + 1) ** -a, images, dim)
    assert alpha_req(features) == pytest.approx(a, abs=1e-4)
    assert alpha_req(7 * features - 2) == pytest.approx(a, abs=1e-4)


def test_alpha_of_a_sample_is_near_that_of_what_it_was_drawn_from():
    features = normal(512, 128) * torch.arange(1, 129) ** -0.5
    assert alpha_req(features) == pytest.approx(1.0, abs=0.1)


def test_alpha_rises_when_directions_die():
    def alive(directions: int) -> float:
        dead = torch.full((32 - directions,), 1e-30)
        return alpha_req(with_spectrum(torch.cat([torch.ones(directions), dead]), 100, 32))

    assert alive(31) < alive(16) < alive(8) < alive(2)
    assert alive(1) == alpha_req(torch.ones(100, 32)) > 5


def test_alignment_and_uniformity_are_their_definitions():
    za, zb = normal(7, 5).double(), normal(7, 5, seed=1).double()
    rows = [[z / z.norm() for z in both] for both in (za, zb)]
    apart = [float((a - b).norm() ** 2) for a, b in zip(*rows, strict=True)]
    assert alignment(za, zb) == pytest.approx(sum(apart) / 7, rel=1e-5)
    pairs = [math.exp(-2 * float((rows[0][i] - rows[0][j]).norm() ** 2)) for i in range(7) for j in range(i)]
    assert uniformity(za) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)


def test_the_ends_of_the_scales():
    z = normal(50, 8)
    assert alignment(z, 3 * z) == pytest.approx(0, abs=1e-6)
    assert alignment(z, -z) == pytest.approx(4)
    assert uniformity(torch.eye(50)) == pytest.approx(-4)
    assert uniformity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-8)
    assert rankme(torch.eye(50)) == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize("features", [torch.full((20, 6), 0.3), torch.zeros(20, 6), normal(1, 6), torch.zeros(1, 1)])
def test_features_without_any_spread(features):
    assert rankme(features) == pytest.approx(1, abs=1e-4)
    assert feature_std(features) == pytest.approx(0, abs=1e-6)
    assert uniformity(features) == pytest.approx(0, abs=1e-6)
    assert alignment(features, features) == 0
    assert alpha_req(features) == (0.0 if len(features) == 1 else alpha_req(torch.ones(20, 6)))


@pytest.mark.parametrize("of", [alpha_req, uniformity, feature_std, rankme, lambda z: alignment(torch.ones(4, 3), z)])
def test_features_that_are_not_finite_are_counted(of):
    features = torch.ones(4, 3)
    features[1, 2], features[3] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="the features of 2 of 4 examples are not finite"):
        of(features)


# What is looked at while a run goes on


def method(kind: type[Method] = SimCLR, **settings: Any) -> Any:
    torch.manual_seed(derive(0, "init"))
    return kind(Encoder(1, 28, name="resnet10", width=4, stem_stride=2), **settings)


def watch_of(one: Any, dataset: Dataset, rows: int = 60) -> Any:
    return Watch(one, one.Views(dataset.format), dataset, dataset.pretraining_rows[:rows], CPU, 0)


def test_looking_changes_nothing_and_always_sees_the_same(dataset):
    weights = []
    for every in (1, 100):
        one = method(projector=(16, 8))
        watch = watch_of(one, dataset)
        assert watch() == watch()
        for step in fit(one, watch.views, dataset, CPU, 0, **SETTINGS):
            if step.number % every == 0:
                random = torch.get_rng_state()
                watch()
                assert torch.equal(torch.get_rng_state(), random)
                one.train()
        weights.append(one.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_the_first_row_is_that_of_the_untrained_weights(dataset):
    one = method(projector=(16, 8))
    watch = watch_of(one, dataset)
    kept = {key: value.clone() for key, value in one.state_dict().items()}
    before = watch()
    assert all(torch.equal(value, kept[key]) for key, value in one.state_dict().items())

    step = next(iter(fit(one, watch.views, dataset, CPU, 0, **SETTINGS)))
    first, second = first_row(step, before), row(step, watch())
    assert list(first) == list(second)
    assert (first["step"], first["epoch"], first["loss"]) == (0, 0.0, second["loss"])


def test_signs_are_those_that_a_method_has(dataset):
    of_features = {"feature_std", "rankme", "alpha_req"}
    of_projections = {"projection_std", "projection_rankme"}
    of_views = {"alignment", "uniformity"}
    assert set(watch_of(method(Rotation), dataset)()) == of_features
    assert set(watch_of(method(), dataset)()) == of_features | of_projections | of_views
    vit = Encoder(1, 28, name="vit_tiny", width=32, depth=1, patch_size=7)
    assert set(watch_of(MAE(vit, decoder_width=32, decoder_depth=1), dataset)()) == of_features


def test_signs_are_those_of_batch_norm_over_the_very_images(dataset):
    one = method(BYOL, projector=(16, 8), predictor=8)
    watch = watch_of(one, dataset, rows=40)
    for _ in fit(one, watch.views, dataset, CPU, 0, **SETTINGS):
        pass
    signs = watch()
    assert not one.training
    one.train()  # in which BatchNorm normalises over the batch
    with torch.no_grad():
        features = one.encoder(watch.views.normalise(dataset.read(np.asarray(watch.rows))["images"]))
        projections = one.projector(features)
    assert signs["rankme"] == pytest.approx(rankme(features), rel=0.02)
    assert signs["feature_std"] == pytest.approx(feature_std(features), rel=0.02)
    assert signs["projection_rankme"] == pytest.approx(rankme(projections), rel=0.02)


@pytest.mark.parametrize("name", [f"{kind} {name}" for kind in KINDS for name in names(kind)])
def test_every_method_can_be_looked_at(name):
    case = make(name)
    signs = Watch(case.method, case.views, case.data, case.data.pretraining_rows, CPU, 0)()
    assert all(math.isfinite(value) for value in signs.values())
    assert signs["rankme"] > 2


def test_views_that_are_looked_at_are_of_a_stream_of_their_own(dataset):
    vit = Encoder(1, 28, name="vit_tiny", width=32, depth=1, patch_size=7)  # without BatchNorm
    watch = watch_of(SimCLR(vit, projector=(8,)), dataset, rows=40)
    signs = watch()
    torch.manual_seed(derive(0, "diagnostics", "views"))
    with torch.no_grad():
        za, zb = (vit(view) for view in watch.views(dataset.read(watch.rows)))
    assert signs["alignment"] == pytest.approx(alignment(za, zb), rel=0.01)  # views are rounded to colours
    assert signs["uniformity"] == pytest.approx((uniformity(za) + uniformity(zb)) / 2, rel=0.01)
