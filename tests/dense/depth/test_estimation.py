"""Depth from a few maps: the errors, what is learnt from, what stays frozen, and the control that looks at nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sslflow.data.dataset import Dataset
from sslflow.dense.depth.estimation import Estimated, estimate_depth, facts_of, mean_maps
from sslflow.dense.depth.scores import ERRORS, errors_of
from sslflow.dense.rows import annotated_subset, lacking
from sslflow.networks.encoder import Encoder
from tests.depth_fixtures import SIDE, deep_dataset

CPU = torch.device("cpu")
QUICK = {"fractions": (0.5,), "epochs": 1, "min_steps": 3, "batch_size": 6, "width": 4}


def encoder() -> Encoder:
    torch.manual_seed(7)
    return Encoder(3, SIDE, name="resnet10", width=4, stem_stride=2)


def estimated(dataset: Dataset, *protocols, scratch: bool = False, **settings) -> list[Estimated]:
    return list(estimate_depth(encoder, dataset, CPU, 0, protocols, scratch, **{**QUICK, **settings}))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return deep_dataset(tmp_path_factory.mktemp("deep") / "prepared", without=4)


def test_errors_are_what_plain_sums_give() -> None:
    torch.manual_seed(0)
    told, true = 1 + 4 * torch.rand(3, 1, 4, 5), 1 + 4 * torch.rand(3, 1, 4, 5)
    true[:, :, 0] = 0
    for mine, right, found in zip(told, true, errors_of(told, true), strict=True):
        pairs = [(float(a), float(b)) for a, b in zip(mine.flatten(), right.flatten(), strict=True) if b]
        n = len(pairs)
        logs = [math.log(a) - math.log(b) for a, b in pairs]
        wanted = [
            sum(abs(a - b) / b for a, b in pairs) / n,
            sum((a - b) ** 2 for a, b in pairs) / n,
            sum(max(a / b, b / a) < 1.25 for a, b in pairs) / n,
            float(np.var(logs)),
        ]
        assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    assert errors_of(2 * true, true)[0].tolist() == pytest.approx(
        [1, float(true[0][true[0] > 0].square().mean()), 0, 0], abs=1e-5
    )


def test_a_share_knows_nothing_of_the_other_maps(dataset: Dataset) -> None:
    rows = annotated_subset(dataset, "depth", 0.25, 0)
    assert len(rows) == 5
    maps = dataset.read(rows)["depth"]
    logs = maps[maps > 0].log()
    facts = facts_of(dataset, rows)
    assert (facts.mean_log, facts.std_log) == pytest.approx((float(logs.mean()), float(logs.std())), rel=1e-3)
    assert not lacking(dataset, "depth")
    assert set(rows) <= set(dataset.annotated_rows("train", "depth")) < set(dataset.rows("train"))


def test_the_mean_map_is_that_of_the_images_learnt_from(dataset: Dataset) -> None:
    (found,) = mean_maps(dataset, 0, (0.5,))
    rows, test = annotated_subset(dataset, "depth", 0.5, 0), dataset.annotated_rows("test", "depth")
    maps = dataset.read(rows)["depth"]
    usual = maps.clamp_min(1e-9).log().mean(dim=0)
    usual[:, :, :2] = facts_of(dataset, rows).mean_log
    true = dataset.read(test)["depth"]
    assert np.allclose(found.errors, errors_of(usual.exp().expand_as(true), true).numpy(), rtol=1e-4)
    assert (found.protocol, found.images, set(found.maps)) == ("mean", 10, set(test.tolist()))


def test_depth_can_be_learnt_and_beats_what_looks_at_nothing(dataset: Dataset) -> None:
    (blind,) = mean_maps(dataset, 0, (1.0,))
    settings = {"fractions": (1.0,), "min_steps": 60, "smallest": 0.8, "width": 8, "batch_size": 6}
    found = {one.protocol: one for one in estimated(dataset, "frozen", "tuned", **settings)}
    means = {name: one.errors.mean(axis=0)[ERRORS.index("abs_rel")] for name, one in {**found, "mean": blind}.items()}
    assert means["tuned"] < 0.7 * means["mean"]
    assert means["frozen"] < means["mean"]


def test_a_frozen_encoder_keeps_every_bit_and_a_tuned_one_does_not(dataset: Dataset, monkeypatch) -> None:
    made: list[Encoder] = []

    def kept() -> Encoder:
        made.append(encoder())
        return made[-1]

    list(estimate_depth(kept, dataset, CPU, 0, ("frozen", "tuned"), **QUICK))
    before = encoder().state_dict()
    same = [all(torch.equal(one, other.state_dict()[name]) for name, one in before.items()) for other in made]
    assert same == [True, False]


def test_the_same_run_gives_the_same_bits_and_scratch_learns_at_its_own_rate(dataset: Dataset) -> None:
    (one,), (again,) = (estimated(dataset, "tuned") for _ in range(2))
    assert np.array_equal(one.errors, again.errors)
    (scratch,) = estimated(dataset, "tuned", scratch=True, encoder_lr=1e-9, scratch_lr=3e-3)
    (tuned,) = estimated(dataset, "tuned", encoder_lr=3e-3)
    assert np.array_equal(scratch.errors, tuned.errors)


def test_a_loss_that_is_not_finite_names_the_rate(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=r"depth, frozen: the loss is not finite .* try a smaller depth.lr"):
        estimated(dataset, "frozen", lr=1e4, min_steps=60, warmup=0.0)
