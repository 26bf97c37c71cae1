"""Gradients of a batch in parts, of several processes, and by compiled networks."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from sslflow.methods.images.byol import BYOL
from sslflow.methods.images.colorization import Colorization
from sslflow.methods.images.mae import MAE
from sslflow.methods.images.rotation import Rotation
from sslflow.methods.images.simclr import SimCLR
from sslflow.networks.batch_norm import batch_norms
from sslflow.networks.encoder import Encoder
from sslflow.runtime.distributed import from_first
from sslflow.training.fit import fit
from sslflow.training.gradients import Gradients
from sslflow.training.method import Batch, Method
from tests.cases import METHODS as EVERY_METHOD
from tests.cases import make, tinted
from tests.conftest import write_dataset

CPU = torch.device("cpu")
SMALL = {"name": "resnet10", "width": 4, "stem_stride": 2}


def gradients(method: Method, given: Batch, parts: int, **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and each parameter's gradient, with BatchNorm's statistics as they are: parts would have their own."""
    method = copy.deepcopy(method)
    for norm in batch_norms(method):
        norm.eval()
    losses = Gradients(method, CPU, "fp32", parts, **settings)(given.views, given.rows, given.progress)
    return losses["loss"], {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_parts_of_a_batch_add_up_or_are_refused(name):
    case = make(name)
    method, given = case.method, case.batch(10)
    if not method.additive:
        with pytest.raises(ValueError, match="its loss is not the mean over parts of a batch; set accumulate to 1"):
            gradients(method, given, 3)
        return
    (loss, whole), (parted, parts) = gradients(method, given, 1), gradients(method, given, 3)
    torch.testing.assert_close(parted, loss)
    assert set(parts) == set(whole)
    for key, gradient in whole.items():
        torch.testing.assert_close(parts[key], gradient, atol=1e-5, rtol=1e-4)


def test_a_run_in_parts_learns_as_one_in_whole_batches(dataset):
    def trained(**settings: Any) -> Tensor:
        torch.manual_seed(0)
        method = Rotation(Encoder(1, 28, name="vit_tiny", width=32, depth=1, patch_size=7))  # without BatchNorm
        for _ in fit(
            method, Rotation.Views(dataset.format), dataset, CPU, 0, epochs=1, batch_size=40, lr=1e-3, **settings
        ):
            pass
        return nn.utils.parameters_to_vector(method.parameters()).detach()

    torch.testing.assert_close(trained(accumulate=4), trained(), atol=2e-5, rtol=1e-4)


def test_what_compares_the_examples_of_a_batch_is_not_run_in_parts(dataset):
    method = SimCLR(Encoder(1, 28, **SMALL), projector=(8,))
    run = fit(method, SimCLR.Views(dataset.format), dataset, CPU, 0, epochs=1, batch_size=40, lr=1e-3, accumulate=4)
    with pytest.raises(ValueError, match="accumulate is 4, and SimCLR compares"):
        next(run)


# Compiled


METHODS = {
    "forward": lambda: SimCLR(Encoder(3, 28, **SMALL), projector=(8,)),
    "map": lambda: Colorization(Encoder(3, 28, **SMALL), decoder=8),
    "tokens": lambda: MAE(
        Encoder(3, 28, name="vit_tiny", width=32, depth=1, patch_size=7), decoder_width=32, decoder_depth=1
    ),
    "teacher": lambda: BYOL(Encoder(3, 28, **SMALL), projector=(8, 8), predictor=8),
}


@pytest.mark.parametrize("called", METHODS)
def test_compile_reaches_all_that_methods_call(called, fashion, tmp_path, monkeypatch):
    calls: list[str] = []

    def counting(graph: torch.fx.GraphModule, _: Any) -> Any:
        def run(*given: Any) -> Any:
            calls.append("compiled")
            return graph(*given)

        return run

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    colours = tinted(fashion[0][:16])
    dataset = write_dataset(tmp_path / "prepared", colours, fashion[1][:16], ["train"] * 16)

    def losses(compile: bool) -> list[float]:
        torch.manual_seed(0)
        torch.compiler.reset()
        method = METHODS[called]()
        views = method.Views(dataset.format)
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "compile": compile}
        return [float(step.losses["loss"]) for step in fit(method, views, dataset, CPU, 0, **settings)]

    plain = losses(compile=False)
    assert not calls
    assert losses(compile=True) == pytest.approx(plain, rel=1e-4)
    # Two views, and for the teacher two more, in each of four steps; one view for the others.
    assert len(calls) >= 4 * {"forward": 2, "map": 1, "tokens": 1, "teacher": 4}[called]


# Several processes


def problem() -> tuple[Method, Batch]:
    torch.manual_seed(0)
    method = SimCLR(Encoder(1, 16, name="vit_tiny", width=32, depth=1, patch_size=8), projector=(8,))
    return method, Batch(tuple(torch.randn(2, 8, 1, 16, 16)), torch.arange(8), progress=0.0)


def rows(given: Batch, mine: slice) -> Batch:
    return Batch(tuple(view[mine] for view in given.views), given.rows[mine], given.progress)


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    method, given = problem()
    mine = rows(given, slice(4 * number, 4 * number + 4))
    found = {str(way): gradients(method, mine, 1, overlapped=way)[1] for way in (False, True)}
    state = {"step": 7, "method": {"weight": torch.arange(5.0)}, "curve": [{"loss": 0.5}]} if number == 0 else None
    found["state"] = from_first(state, CPU)
    found["nothing"] = from_first(None, CPU)
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gloo")
    spawn(process, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


@pytest.mark.parametrize("overlapped", ["False", "True"])
def test_processes_have_the_gradients_of_the_whole_batch_exchanged_afterwards_or_meanwhile(results, overlapped):
    _, whole = gradients(*problem(), parts=1)
    for of_process in results:
        assert set(of_process[overlapped]) == set(whole)
        for name, gradient in whole.items():
            torch.testing.assert_close(of_process[overlapped][name], gradient, atol=1e-6, rtol=1e-4)


def test_the_first_process_s_state_reaches_the_others(results):
    for of_process in results:
        assert of_process["state"]["step"] == 7
        assert torch.equal(of_process["state"]["method"]["weight"], torch.arange(5.0))
        assert of_process["nothing"] is None
