"""What every method must do, whoever wrote it and whatever it learns from: run over every file in sslflow/methods/."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sslflow.adaptation.method import Pair
from sslflow.data.fields import Fields
from sslflow.features.extract import calibrate, extract
from sslflow.monitoring.diagnostics import feature_std
from sslflow.training.fit import fit
from sslflow.training.method import Batch, Losses, Method, find, names
from sslflow.views.images import TwoViews, Views
from sslflow.views.volumes import TwoVolumeViews
from tests.cases import ADAPTERS, METHODS, AdapterCase, Case, image_case, make

CPU = torch.device("cpu")
FEWEST, MOST, AVERAGED = 40, 120, 8
"""Steps of a short run, in which a method has to have learnt something; and of a mean at its beginning and its end."""
DRAWS = 8
"""Of views, by which a method is judged whose loss need not fall."""


@dataclass
class Stepped:
    """What a step did."""

    method: nn.Module
    given: Batch | Pair
    was_given: list[Tensor]
    losses: Losses
    state: dict[str, Tensor]
    """The state before it."""
    without_gradient: list[str]


@pytest.fixture(scope="module", params=[*METHODS, *ADAPTERS])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def case(name: str) -> Case | AdapterCase:
    return make(name)


@pytest.fixture(scope="module")
def stepped(case: Case | AdapterCase) -> Stepped:
    method, given = copy.deepcopy(case.method), case.batch()
    was_given, state = [tensor.clone() for tensor in tensors(given)], copy.deepcopy(method.state_dict())
    losses = method.training_step(given)  # pyright: ignore[reportArgumentType]
    losses["loss"].backward()
    trained = {key: p for key, p in method.named_parameters() if p.requires_grad}
    missing = [key for key, p in trained.items() if p.grad is None or not p.grad.any()]
    torch.optim.SGD(trained.values(), lr=0.1).step()
    method.after_step(0.5)
    return Stepped(method, given, was_given, losses, state, missing)


def tensors(given: Batch | Pair) -> list[Tensor]:
    if isinstance(given, Pair):
        return [given.source, given.labels, given.target, given.rows]
    return [*given.views, given.rows]


def test_loss_is_a_finite_scalar(stepped: Stepped) -> None:
    assert stepped.losses["loss"].isfinite()
    assert stepped.losses["loss"].requires_grad
    assert all(value.shape == () for value in stepped.losses.values())


def test_every_trainable_parameter_gets_a_gradient(stepped: Stepped) -> None:
    assert not stepped.without_gradient


def test_what_is_frozen_moves_after_a_step(stepped: Stepped) -> None:
    parameters = stepped.method.named_parameters()
    assert not [key for key, parameter in parameters if torch.equal(parameter, stepped.state[key])]


def test_inputs_are_not_changed(case: Case | AdapterCase, stepped: Stepped) -> None:
    assert all(torch.equal(a, b) for a, b in zip(tensors(stepped.given), stepped.was_given, strict=True))
    if isinstance(case, Case):
        read, again = (case.data.read(case.data.pretraining_rows[:8]) for _ in range(2))
        case.views(read)
        assert all(torch.equal(read[field], again[field]) for field in read)


def test_order_of_the_batch_does_not_matter(case: Case | AdapterCase) -> None:
    given = case.batch()
    found = []
    for one in (given, shuffled(case, given)):
        torch.manual_seed(2)
        found.append(copy.deepcopy(case.method).training_step(one)["loss"])  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def shuffled(case: Case | AdapterCase, given: Batch | Pair) -> Batch | Pair:
    """The same examples in another order."""
    if isinstance(given, Pair):
        ours, theirs = torch.randperm(len(given.source)), torch.randperm(len(given.target))
        return replace(
            given, source=given.source[ours], labels=given.labels[ours], target=given.target[theirs],
            rows=given.rows[theirs],
        )  # fmt: skip
    assert isinstance(case, Case)
    order = torch.randperm(len(given.rows))
    views = [view[order] for view in given.views]
    for place in case.views.numbers_batch:
        views[place] = torch.where(views[place] < 0, views[place], order.argsort()[views[place]])
    return Batch(tuple(views), given.rows[order], given.progress)


def test_state_round_trip_gives_the_same_loss(name: str, stepped: Stepped) -> None:
    method, other = copy.deepcopy(stepped.method), make(name, seed=1).method
    assert any(not torch.equal(a, b) for a, b in zip(method.parameters(), other.parameters(), strict=True))
    other.load_state_dict(method.state_dict())
    found: list[Tensor] = []
    both: tuple[Any, Any] = (method, other)
    for one in both:
        torch.manual_seed(2)
        found.append(one.training_step(stepped.given)["loss"])
    assert torch.equal(*found)


@pytest.mark.parametrize("name", METHODS, scope="function")
def test_a_few_dozen_steps_learn_without_collapse(name: str) -> None:
    case = make(name, start=False)
    method, data, rows = case.method, case.data, case.data.pretraining_rows
    assert isinstance(method, Method)
    untrained, two_views = copy.deepcopy(method), isinstance(case.views, TwoViews | TwoVolumeViews)
    size, some = len(rows) // 2, data.read(rows[:16])
    told: list[list[float]] = []

    def learned() -> bool:
        first, last = np.mean(told[:AVERAGED], axis=0), np.mean(told[-AVERAGED:], axis=0)
        falls = not (method.moving_targets and two_views)
        if falls and (last[0] < 0.9 * first[0] or last[1] > first[1] + 0.1):
            return True
        return two_views and preferred(method, case.views, some) > 2 * preferred(untrained, case.views, some)

    for step in fit(method, case.views, data, CPU, 0, epochs=MOST // 2, batch_size=size, lr=3e-3):
        told.append([float(step.losses["loss"]), float(step.losses.get("accuracy", 0.0))])
        if step.number % FEWEST == 0 and learned():
            break
    assert learned()
    calibrate(method.encoder, data, rows, CPU)
    assert feature_std(torch.from_numpy(extract(method.encoder, data, rows, CPU))) > 0.1


@torch.no_grad()
def preferred(method: Method, views: Views, fields: Fields) -> float:
    """How much smaller the loss is with two views of an image than with those of two, over some draws: the rest of a
    loss whose targets move tells nothing."""
    method, found = copy.deepcopy(method), []
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        first, second, *others = views(fields)
        for other in (second, second.roll(1, 0)):
            torch.manual_seed(draw)
            given = Batch((first, other, *others), torch.arange(len(first)), 0.5)
            found.append(float(method.training_step(given)["loss"]))
    return float(np.mean(found[1::2]) - np.mean(found[::2]))


@pytest.mark.parametrize("image_method", names("images"))
def test_colour_images_are_seen(image_method: str) -> None:
    case = image_case(image_method, colour=True)
    assert case.method.training_step(case.batch(8))["loss"].isfinite()


def test_unknown_method_is_named_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'simclr'"):
        find("simclrr")
