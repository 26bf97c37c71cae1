"""Two processes give the loss and the gradients of one process with the whole batch, where BatchNorm has no part."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.elastic.utils.distributed import create_c10d_store
from torch.multiprocessing.spawn import spawn

from sslflow.audiovisual.method import ClipMethod, find, names
from sslflow.methods.images.barlow_twins import barlow_terms
from sslflow.methods.images.simclr import nt_xent
from sslflow.networks.encoder import Encoder
from sslflow.runtime import distributed, turns
from sslflow.runtime.distributed import (
    all_reduce_sum,
    average_gradients,
    gather,
    gather_uneven,
    of_this_start,
    rank,
    world_size,
)
from sslflow.stages.entry import LOST
from sslflow.training.ingredients import build, ingredients
from sslflow.training.method import Batch

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


CLIPS = 8
SMALL = {"name": "resnet10", "width": 4, "stem_stride": 2}


def clip_problem(name: str) -> tuple[ClipMethod, list[Batch]]:
    """A method for clips, and eight clips in two parts, as each of two processes sees them."""
    torch.manual_seed(0)
    encoder, sounds = Encoder(3, 32, **SMALL), Encoder(1, 64, **SMALL)
    kind: Any = find(name.partition(" ")[0])
    wanted = ingredients(kind)
    factories = {
        "encoder": lambda: encoder,
        "sound_encoder": lambda: sounds,
        "statistics": lambda: torch.randn(CLIPS, 5),
        "labels": lambda: torch.tensor([0, 1, -1, -1, -1, 2, 1, -1]),
    }
    method = build(kind, factories, {})
    # Statistics of a part of the batch are others than those of the whole one. What sees the whole one keeps its own.
    method.eval()
    for whole in (getattr(method, part, None) for part in ("fusion", "classifier") if name != "ambient_sound"):
        if whole is not None:
            whole.train()
    several = {"synchrony": (2, 4), "temporal_order": (3,)}.get(name.partition(" ")[0], ())
    frames = torch.randn(CLIPS, *several, 3, 32, 32)
    heard = torch.randn(CLIPS, *several[:1], 1, 64, 20)
    if "statistics" in wanted:
        method.centroids.copy_(torch.randn_like(method.centroids))
        method.used.fill_(4)
        views = frames, torch.randn(CLIPS, 5)
    elif wanted == ("encoder",):
        orders = torch.tensor([[0, 1, 2], [1, 0, 2]]).expand(CLIPS, 2, 3)
        still = {"temporal_order": [0, 2, 3, 6], "temporal_order without motion": [0, 1, 2, 3]}[name]
        views = frames, orders, torch.tensor([number not in still for number in range(CLIPS)])
    elif "labels" in wanted:
        views = frames, heard
    elif name == "correspondence":
        views = frames, heard, torch.tensor([[1, 2], [0, -1], [3, 0], [-1, -1], [1, 2], [-1, 3], [-1, 0], [2, 1]])
    else:
        views = frames, heard, torch.tensor([0, 0, 1, 2, 2, 1, 3, 4])
    rows = torch.arange(CLIPS)
    half = CLIPS // 2
    parts = (slice(0, half), slice(half, CLIPS))
    return method, [Batch(tuple(view[part] for view in views), rows[part], progress=0.4) for part in parts]


CLIP_METHODS = [*names(), "temporal_order without motion"]
LOCAL = ("ambient_sound",)
"""Each process has the loss of its own part, which is a mean over as many clips."""


def step_of(method: ClipMethod, batch: Batch) -> tuple[Tensor, Tensor]:
    """Loss and all gradients."""
    loss = method.training_step(batch)["loss"]
    loss.backward()
    parameters = list(method.parameters())
    average_gradients(parameters)
    return loss.detach(), torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def whole(name: str, parts: list[Batch]) -> Batch:
    """The batch as one process sees it."""
    views = [torch.cat(both) for both in zip(*(part.views for part in parts), strict=True)]
    if name == "correspondence":
        later = torch.arange(CLIPS)[:, None] >= CLIPS // 2
        views[2] = torch.where(later & (views[2] >= 0), views[2] + CLIPS // 2, views[2])
    return Batch(tuple(views), torch.cat([part.rows for part in parts]), parts[0].progress)


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    mine = slice(4 * number, 4 * number + 4)
    results = {name: loss_and_gradient(loss, mine) for name, loss in LOSSES.items()}
    for name in CLIP_METHODS:
        method, parts = clip_problem(name)
        results[name] = step_of(method, parts[number])
    uneven = torch.arange(6.0).view(3, 2)[: 3 * number].requires_grad_()
    results["uneven"] = (gather_uneven(uneven), gather_uneven(uneven[:0]))
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


@pytest.mark.parametrize("name", CLIP_METHODS)
def test_a_step_of_a_method_for_clips_equals_that_of_one_process(results, name):
    method, parts = clip_problem(name)
    loss, gradient = step_of(method, whole(name, parts))
    losses = torch.stack([of_process[name][0] for of_process in results])
    torch.testing.assert_close(losses.mean().expand(2) if name in LOCAL else losses, loss.expand(2))
    for of_process in results:
        torch.testing.assert_close(of_process[name][1], gradient, atol=1e-5, rtol=1e-4)
    assert gradient.abs().max() > 1e-3


def test_rows_are_gathered_of_which_one_process_has_none(results):
    for of_process in results:
        rows, none = of_process["uneven"]
        assert torch.equal(rows, torch.arange(6.0).view(3, 2))
        assert none.shape == (0, 2)


def test_sums_run_over_all_processes(results):
    assert [float(of_process["sum"][0]) for of_process in results] == [3.0, 3.0]
    assert float(results[0]["sum"][1]) == 2.0


def test_one_process_needs_no_group():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather(rows) is rows
    assert (rank(), world_size()) == (0, 1)


@pytest.fixture
def server() -> Any:
    """The store that torchrun keeps for all starts."""
    return create_c10d_store(True, "127.0.0.1", timeout=60, wait_for_workers=False)


def start(server: Any) -> list[Store]:
    """What each of three processes has of the store."""

    def process(number: int) -> Store:
        client = create_c10d_store(False, "127.0.0.1", server.port, timeout=60, wait_for_workers=False)
        return of_this_start(client, number, 3)

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(process, range(3)))


def test_processes_that_are_started_again_find_nothing_of_those_before(server: Any) -> None:
    for address in ("first", "second", "third"):
        processes = start(server)
        assert not any(process.check(["address"]) for process in processes)
        processes[0].set("address", address)
        assert [process.get("address") for process in processes] == [address.encode()] * 3


def test_pieces_that_were_taken_before_a_start_are_taken_again(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def meet(_: str) -> Iterator[tuple[Store, int, int]]:
        yield create_c10d_store(False, "127.0.0.1", server.port, timeout=60, wait_for_workers=False), 0, 0

    monkeypatch.setattr(sys.modules["torch.distributed.rendezvous"], "rendezvous", meet)
    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(turns._store, range(2), [2, 2])
        assert [first.add("pieces", 1), second.add("pieces", 1)] == [1, 2]


def test_a_process_that_does_not_come_is_given_up(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start(server)
    monkeypatch.setattr(distributed, "MEET_S", 0.2)
    with pytest.raises(RuntimeError, match="timed out waiting for process 1") as error:
        of_this_start(server, 0, 3)
    assert LOST.search(str(error.value))
