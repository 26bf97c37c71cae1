"""BatchNorm over the batches of two processes is BatchNorm over the whole batch: outputs, gradients, statistics."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from sslflow.networks.shared_norm import SharedNorm, share_norms
from sslflow.runtime.distributed import average_gradients, gather_uneven

CPU = torch.device("cpu")
ROWS = slice(0, 5), slice(5, 8)
"""Of the processes: not as many each."""
PASSES = 3


def problem() -> tuple[nn.Module, Tensor]:
    """A network with norms of three kinds, and a batch far from the origin. In float64: how far rounding goes in
    float32 differs by processor."""
    torch.manual_seed(0)
    activated = BatchNormAct2d(4, act_layer=nn.ReLU)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), activated, nn.Flatten(), nn.Linear(144, 3),
        nn.BatchNorm1d(3, affine=False, momentum=None), nn.Linear(3, 2),
    )  # fmt: skip
    return network.double(), 1e4 + torch.randn(8, 2, 8, 8, dtype=torch.float64)


def passed(network: nn.Module, images: Tensor, rows: slice) -> dict[str, Tensor]:
    """Outputs of the whole batch, gradients, and all that the network keeps after several passes."""
    for _ in range(PASSES):
        network.zero_grad()
        out = gather_uneven(network(images[rows]))
        out.tanh().square().sum().backward()
        average_gradients(network.parameters())
    gradients = {f"grad {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"out": out.detach(), **gradients, **network.state_dict()}  # pyright: ignore[reportPossiblyUnboundVariable]


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    network, images = problem()
    share_norms(network, CPU)
    torch.save(passed(network, images, ROWS[number]), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_normalise_as_one(tmp_path: Path) -> None:
    network, images = problem()
    alone = passed(network, images, slice(0, 8))
    spawn(process, args=(str(tmp_path),), nprocs=2)
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            # A variance by the difference of large sums would be off by 1e-8; rounding of gradients grows with images.
            limit = 1e-10 if "running" in name else 1e-5
            torch.testing.assert_close(found[name], value, rtol=limit, atol=limit, msg=lambda m, n=name: f"{n}: {m}")
    own = passed(copy.deepcopy(problem()[0]), images, ROWS[0])
    assert (own["1.running_mean"] - alone["1.running_mean"]).abs().max() > 1e-3


@pytest.mark.parametrize("training", [True, False])
def test_a_single_process_normalises_as_ever(training: bool) -> None:
    network, images = problem()
    shared = copy.deepcopy(network)
    share_norms(shared, CPU)
    assert sum(isinstance(layer, SharedNorm) for layer in shared.modules()) == 3
    for one in (network, shared):
        one.train(training)
    assert torch.equal(shared(images), network(images))
    assert shared.state_dict().keys() == network.state_dict().keys()
