"""Two processes give the loss and the gradients of one process with the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from sslflow.methods.images.barlow_twins import barlow_terms
from sslflow.methods.images.simclr import nt_xent
from sslflow.runtime.distributed import all_reduce_sum, average_gradients, gather, rank, world_size

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nt_xent": lambda za, zb: nt_xent(za, zb, 0.2),
    "barlow": lambda za, zb: torch.stack(barlow_terms(za, zb)).sum(),
}


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Two views of eight images, and the weights that project them."""
    numbers = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, generator=numbers) for shape in ((8, 6), (8, 6), (6, 4)))  # pyright: ignore[reportReturnType]


def loss_and_gradient(loss: Callable[[Tensor, Tensor], Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    """What this process computes from its rows, made the same in all of them."""
    xa, xb, start = problem()
    weights = torch.nn.Parameter(start)
    value = loss(gather(xa[rows] @ weights), gather(xb[rows] @ weights))
    value.backward()
    average_gradients([weights])
    assert weights.grad is not None
    return value.detach(), weights.grad


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    mine = slice(4 * number, 4 * number + 4)
    results = {name: loss_and_gradient(loss, mine) for name, loss in LOSSES.items()}
    results["sum"] = (all_reduce_sum(torch.tensor([float(rank() + 1)])), torch.tensor([float(world_size())]))
    torch.save(results, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, tuple[Tensor, Tensor]]]:
    folder = tmp_path_factory.mktemp("gloo")
    spawn(process, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_equal_those_of_one_process(results, name):
    loss, gradient = loss_and_gradient(LOSSES[name], slice(0, 8))
    for of_process in results:
        torch.testing.assert_close(of_process[name][0], loss)
        torch.testing.assert_close(of_process[name][1], gradient)


def test_sums_run_over_all_processes(results):
    assert [float(of_process["sum"][0]) for of_process in results] == [3.0, 3.0]
    assert float(results[0]["sum"][1]) == 2.0


def test_one_process_needs_no_group():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather(rows) is rows
    assert (rank(), world_size()) == (0, 1)
