from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sslflow.data.depth import DepthFacts
from sslflow.methods.images.depth_alignment import DepthAlignment
from sslflow.methods.images.depth_prediction import DepthPrediction, reduced
from sslflow.networks.encoder import Encoder
from sslflow.training.fit import fit
from sslflow.training.ingredients import example_rows
from sslflow.training.method import Batch, find
from tests.cases import image_case
from tests.conftest import write_dataset
from tests.depth_fixtures import deep_dataset

CPU = torch.device("cpu")


def test_places_are_means_over_what_is_known_in_them() -> None:
    maps = torch.tensor([[1.0, math.e, 0.0, 0.0], [math.e, math.e, 0.0, 0.0]]).view(1, 1, 2, 4)
    maps = torch.cat([maps, torch.full((1, 1, 2, 4), math.e**2)], dim=2)
    maps[0, 0, 2, 0] = 0
    logs, known = reduced(maps, 2)
    assert torch.allclose(logs, torch.tensor([[0.75, 0.0], [2.0, 2.0]]).view(1, 1, 2, 2), atol=1e-6)
    assert known.flatten().tolist() == [1, 0, 1, 1]


def test_log_depth_is_standardised_and_unknown_is_the_mean() -> None:
    facts = DepthFacts(1.0, 2.0)
    depth = torch.tensor([math.e, math.e**5, 0.0])
    torch.testing.assert_close(facts.standardised(depth), torch.tensor([0.0, 2.0, 0.0]), atol=1e-6, rtol=1e-6)


def test_a_crop_in_which_nothing_is_known_is_nobodys_answer() -> None:
    torch.manual_seed(0)
    colour, deep = (Encoder(channels, 16, name="resnet10", width=4, stem_stride=2) for channels in (3, 1))
    method = DepthAlignment(colour, deep, DepthFacts(0.0, 1.0), projector=(8, 8)).eval()
    images, maps = torch.randn(6, 3, 16, 16), torch.rand(6, 1, 16, 16) + 1
    ends = torch.zeros(6, 2, 3, 1, 1)
    maps[5] = 0

    @torch.no_grad()
    def loss(images: torch.Tensor, maps: torch.Tensor) -> float:
        return float(
            method.training_step(Batch((images, maps, ends[: len(maps)]), torch.arange(len(maps)), 0.5))["loss"]
        )

    assert loss(images, maps) == pytest.approx(loss(images[:5], maps[:5]) * 5 / 6, rel=1e-5)


def test_the_best_constant_answer_is_the_mean_map_so_far() -> None:
    case = image_case("depth_prediction")
    batch = case.batch(16)
    method = case.method
    assert isinstance(method, DepthPrediction)
    said = method.training_step(batch)["chance_loss"]
    true, known = reduced(batch.views[1], method.side)
    constant = (true * known).sum(dim=0) / known.sum(dim=0).clamp_min(1)
    error = [
        (d := (constant - one)[there > 0]).square().mean() - method.invariance * d.mean() ** 2
        for one, there in zip(true, known, strict=True)
    ]
    assert float(said) == pytest.approx(float(torch.stack(error).mean()), rel=1e-4)


@pytest.mark.parametrize("name", ["depth_alignment", "depth_prediction"])
def test_images_without_a_depth_map_are_not_trained_on(tmp_path, name: str) -> None:
    dataset = deep_dataset(tmp_path / "deep", without=3)
    rows = example_rows(find(name), dataset)
    assert len(rows) == len(dataset.pretraining_rows) - 3
    assert (dataset.read(rows)["depth"].flatten(1).amax(dim=1) > 0).all()
    images = np.zeros((4, 3, 8, 8), np.uint8)
    plain = write_dataset(tmp_path / "plain", images, np.full(4, -1), ["train"] * 4)
    with pytest.raises(ValueError, match="no depth maps beside these images"):
        example_rows(find(name), plain)


@pytest.mark.parametrize("name", ["depth_alignment", "depth_prediction"])
def test_a_resumed_run_ends_with_the_same_bits(name: str, tmp_path) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 1e-3}
    whole, other = image_case(name, count=32, start=False), image_case(name, seed=1, count=32, start=False)
    for step in fit(whole.method, whole.views, whole.data, CPU, 0, **settings):
        if step.number == 3:
            torch.save(step.state(), tmp_path / "state.pt")
    torch.manual_seed(99)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert [step.number for step in fit(other.method, other.views, other.data, CPU, 0, state, **settings)] == [4]
    for key, value in whole.method.state_dict().items():
        assert torch.equal(value, other.method.state_dict()[key]), key
