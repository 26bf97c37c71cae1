"""Crops of one size pass through a network together, whatever the method."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from sslflow.networks.teacher import Teacher
from tests.cases import image_case


def passes(network: Any) -> list[tuple[int, int]]:
    """Images, and their side, of each pass through a network's first layer, from now on."""
    found: list[tuple[int, int]] = []
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, inputs: found.append((len(inputs[0]), inputs[0].shape[-1])))
    return found


@pytest.mark.parametrize("name", ["dino", "swav", "lejepa", "ibot", "dinov2"])
def test_large_crops_are_one_pass_and_small_ones_another(name):
    case = image_case(name, count=24)
    batch = case.batch(6)
    sides = [view.shape[-1] for view in batch.views if view.ndim == 4]
    assert len(sides) == 4
    assert sides[0] == sides[1] > sides[2] == sides[3]
    teacher = getattr(case.method, "teacher", None)
    student, taught = passes(case.method.encoder.network), passes(teacher) if isinstance(teacher, Teacher) else [(0, 0)]
    case.method.train().training_step(batch)
    assert [count for count, _ in student] == [12, 12]
    assert student[0][1] > student[1][1]
    assert len(taught) == 1, "of the large ones alone"
