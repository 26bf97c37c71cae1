"""Training on few images: which are seen in a step, what is frozen, and what is said of a loss that breaks."""

from typing import Any

import pytest
import torch

from sslflow.networks.encoder import Encoder
from sslflow.training.few import Learnt, encoder_groups, learn_few

COURSE: dict[str, Any] = {"epochs": 2, "min_steps": 5, "weight_decay": 0.0, "warmup": 0.0}
SAID: dict[str, Any] = {"what": "a line", "rates": "its.lr"}


def learnt(images: int, batch_size: int, seed: int = 0, factor: float = 1.0) -> tuple[Learnt, list[list[int]]]:
    weight, seen = torch.nn.Parameter(torch.ones(())), []

    def loss_of(chosen: torch.Tensor, step: int) -> torch.Tensor:
        assert step == len(seen)
        seen.append(chosen.tolist())
        return weight * (factor if step == 3 else 1.0)

    groups = [{"params": [weight], "peak": 0.0}]
    course = {**COURSE, "batch_size": batch_size}
    return learn_few(loss_of, groups, images, torch.device("cpu"), seed, "test", **course, **SAID), seen


def test_each_epoch_sees_each_image_once_in_an_order_of_the_seed() -> None:
    found, seen = learnt(12, 3)
    assert found == Learnt(8, 1.0)
    for epoch in (seen[:4], seen[4:]):
        assert sorted(number for step in epoch for number in step) == list(range(12))
    assert seen[:4] != seen[4:]
    assert learnt(12, 3)[1] == seen != learnt(12, 3, seed=1)[1]


def test_where_images_are_few_each_step_sees_all_and_there_are_steps_enough() -> None:
    found, seen = learnt(4, 16)
    assert found.steps == 5
    assert all(sorted(one) == [0, 1, 2, 3] for one in seen)


def test_a_loss_that_breaks_is_said_with_its_step_and_the_rate() -> None:
    with pytest.raises(
        ValueError, match=r"^a line: the loss is not finite from step 4 of 5 on; try a smaller its\.lr$"
    ):
        learnt(4, 16, factor=torch.inf)


def test_an_encoder_without_a_rate_is_frozen_and_layers_decay() -> None:
    encoder = Encoder(3, 32, name="resnet10", width=4, stem_stride=2).train()
    every = set(encoder.parameters())
    layered = encoder_groups(encoder, 0.1, 0.5)
    assert {group["peak"] for group in layered} == {0.1 * 0.5**depth for depth in range(5)}
    assert {weights for group in layered for weights in group["params"]} == every
    (alike,) = encoder_groups(encoder, 0.1)
    assert set(alike["params"]) == every
    assert encoder_groups(encoder, None, 0.5) == []
    assert not encoder.training
    assert not any(weights.requires_grad for weights in every)
