"""A step of every method for images, text and volumes in two processes is the step of one with the whole batch,
BatchNorm's statistics among what it shares. In float64: how far rounding goes in float32 differs by processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from sslflow.networks.shared_norm import share_norms
from sslflow.runtime.distributed import average_gradients
from sslflow.training.method import Batch, Method
from tests.cases import METHODS, make

IMAGES = 12
SUMS = ("answers",)
"""Buffers that hold a sum over the processes, and in their last place its divisor."""
NAMES = [name for name in METHODS if not name.startswith("clips")]
Results = dict[str, dict[str, Tensor]]


def problem(name: str) -> tuple[Method, Batch]:
    """The method, and a batch of twelve images."""
    case = make(name)
    batch = case.batch(IMAGES)
    views = tuple(view.double() if view.is_floating_point() else view for view in batch.views)
    return case.method.double(), replace(batch, views=views)


def step_of(method: Method, given: Batch, mine: slice) -> dict[str, Tensor]:
    """Loss and gradients of a step, and the buffers after it."""
    share_norms(method, torch.device("cpu"))
    batch = Batch(tuple(view[mine] for view in given.views), given.rows[mine], given.progress)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", lambda of: of if of.dtype == torch.float64 else of.to(torch.float32))
        losses = method.training_step(batch)
        losses["loss"].backward()
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    average_gradients(trained)
    gradient = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    kept = {key: buffer for key, buffer in method.named_buffers() if key not in SUMS}
    return {"loss": losses["loss"].detach(), "gradient": gradient, **kept}


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    problems = {name: problem(name) for name in NAMES}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    half = IMAGES // 2
    results = {name: step_of(*one, slice(half * number, half * number + half)) for name, one in problems.items()}
    torch.save(results, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    folder = tmp_path_factory.mktemp("gloo")
    spawn(process, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_take_the_step_of_one(results: list[Results], name: str) -> None:
    alone = step_of(*problem(name), slice(0, IMAGES))
    first, second = (of_process[name] for of_process in results)
    # In some methods the loss is that of the own half, a mean of as many images.
    torch.testing.assert_close((first.pop("loss") + second.pop("loss")) / 2, alone.pop("loss"), rtol=1e-6, atol=1e-9)
    gradient = alone.pop("gradient")
    for of_process in (first, second):
        assert (of_process.pop("gradient") - gradient).norm() < 1e-6 * gradient.norm()
        torch.testing.assert_close(of_process, alone, rtol=1e-6, atol=1e-9)
