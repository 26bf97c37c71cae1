"""One training step of every method on the GPU beside the same step on the CPU, several methods at a time."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.gpu_report import BF16_TOLERANCE, SEED, TOLERANCE, Line, Report, measured
from benchmarks.gpu_subjects import Sizes, Subject, of_kind
from sslflow.data.fields import Fields
from sslflow.runtime.device import compute
from sslflow.training.fit import fit
from sslflow.views.images import Views

CPU = torch.device("cpu")
TOLERANCES = {"difference of loss": TOLERANCE, "difference of gradient norm": TOLERANCE}
SMALL_LOSS = 0.1
"""A loss nearer to 0, as a mean of cosines may be at the start, is compared as if it were this large."""
COMPILED = ("images/simclr", "images/byol", "images/mae", "clips/alignment")
GRACE = 20.0
"""Seconds after the end of the part in which processes that were told to stop may do so."""


class OnTheCpu(Views):
    """Views that are made on the CPU and then moved: the same on every device."""

    def __init__(self, views: Views) -> None:
        nn.Module.__init__(self)
        self.make = views.forward  # no sub-module, which would be moved

    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return tuple(view.to(fields.device) for view in self.make(fields.to(CPU)))


@dataclass(frozen=True)
class Signs:
    """What a step shows of itself."""

    loss: float
    gradient: float
    """Norm over all parameters."""


def steps(subject: Subject, device: torch.device, state: Any = None, **settings: Any) -> Iterator[tuple[Signs, Any]]:
    """The steps of a run of two, by the real loop, and the state after each."""
    method, views = subject.build(), OnTheCpu(subject.views)
    run = fit(method, views, cast(Any, subject.data), device, SEED, state, **{**subject.train, **settings})
    with contextlib.closing(cast(Any, run)):
        for step in run:
            gradients = [p.grad.double().square().sum() for p in method.parameters() if p.grad is not None]
            signs = Signs(float(step.losses["loss"]), float(torch.stack(gradients).sum().sqrt()))
            yield signs, copy.deepcopy(step.state())


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """fp32 products and convolutions on a GPU in full precision."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def difference(found: float, reference: float, least: float = 1e-12) -> float:
    """Relative to the reference, or to `least` where that is larger. Raises `ValueError` for numbers that are not
    finite."""
    if not math.isfinite(found) or not math.isfinite(reference):
        raise ValueError(f"not finite: {found} beside {reference} on the CPU")
    return abs(found - reference) / max(abs(reference), least)


def judge(line: Line, tolerances: Mapping[str, float]) -> None:
    """Whether each of the line's values that is named is within its tolerance."""
    beyond = [name for name, most in tolerances.items() if not line.values[name] <= most]
    line.outcome, line.note = ("failed", f"beyond the tolerance: {', '.join(beyond)}") if beyond else ("passed", "")


def compare(subject: Subject, device: torch.device, line: Line) -> tuple[Any, Signs]:
    """The second step of a run of two, on the device and on the CPU, both from the state after the first, so that
    queues, teachers and clusters are in use. Returns that state, and the CPU's signs.

    The reference is contiguous, in which the CPU's gradients are nearest to those in float64. In channels_last they
    are up to 5e-4 off: a rounding that takes one activation across a ReLU's corner is enough.
    """
    on_cpu = steps(subject, CPU, memory_format="contiguous")
    (_, state), (reference, _) = next(on_cpu), next(on_cpu)
    found, _ = next(steps(subject, device, state))
    same, _ = next(steps(subject, CPU, state))
    bf16, _ = next(steps(subject, device, state, precision="bf16"))
    line.values |= {
        "loss": reference.loss,
        "difference of loss": difference(found.loss, reference.loss, SMALL_LOSS),
        "difference of gradient norm": difference(found.gradient, reference.gradient),
        "on the CPU in channels_last, difference of gradient norm": difference(same.gradient, reference.gradient),
        "difference of loss in bf16": difference(bf16.loss, reference.loss, SMALL_LOSS),
    }
    judge(line, {**TOLERANCES, "difference of loss in bf16": BF16_TOLERANCE})
    return state, reference


def compare_compiled(subject: Subject, device: torch.device, state: Any, reference: Signs, line: Line) -> None:
    """The same step in fp32 with `compile`; `graphs` counts what was compiled."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    found, _ = next(steps(subject, device, state, compile=True))
    line.values |= {
        "loss": reference.loss,
        "difference of loss": difference(found.loss, reference.loss, SMALL_LOSS),
        "difference of gradient norm": difference(found.gradient, reference.gradient),
        "graphs": counters["stats"]["unique_graphs"],
    }
    judge(line, TOLERANCES)
    if not line.values["graphs"]:
        line.outcome, line.note = "failed", "compile compiled nothing"


def compared(name: str, device: torch.device, sizes: Sizes, compiled: bool, end: float) -> list[Line]:
    """A line for a method, such as `images/simclr`, and another with `compile` where that is asked for; none is begun
    or goes on after `end`, by `time.time`."""
    known: list[tuple[Subject, Any, Signs]] = []

    def plain(line: Line) -> None:
        subject = of_kind(*name.split("/"), sizes)  # pyright: ignore[reportCallIssue]
        known.append((subject, *compare(subject, device, line)))

    def with_compile(line: Line) -> None:
        if not known:
            raise ValueError("there is no step on the CPU to compare with")
        subject, state, reference = known[0]
        compare_compiled(subject, device, state, reference, line)

    works = {name: plain, f"{name}, compiled": with_compile}
    with without_tf32():
        asked = list(works.items())[: 1 + compiled]
        return [measured("methods", title, work, min(sizes.limit, end - time.time())) for title, work in asked]


def methods(
    report: Report,
    device: torch.device,
    sizes: Sizes,
    names: Sequence[str],
    compiled: Sequence[str],
    jobs: int = 0,
) -> None:
    """A line for each of the methods, and another for those to compile, after all others; in so many processes of one
    thread each, or, with 0, in this one."""
    order = [*names, *(f"{name}, compiled" for name in compiled)]
    end = time.time() + report.left("methods")
    # Those that take longest first.
    queue = sorted(names, key=lambda name: (name not in compiled, name.startswith("images")))
    work = functools.partial(compared, device=device, sizes=sizes, end=end)
    if jobs:
        # One method may bring down others in its process, which then get another.
        lost = _side_by_side(report, queue, compiled, work, device, jobs, end, again=True)
        _side_by_side(report, lost, compiled, work, device, jobs, end, again=False)
    else:
        for name in queue:
            for line in work(name, compiled=name in compiled):
                report.add(line)
    report.arrange("methods", order)


def _begin(device: str) -> None:
    """In each process: one thread, and what the command sets up."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    compute(device=device, threads=1)


def _side_by_side(
    report: Report,
    names: Sequence[str],
    compiled: Sequence[str],
    work: Callable[..., list[Line]],
    device: torch.device,
    jobs: int,
    end: float,
    again: bool,
) -> list[str]:
    """Lines of the names by `work`, by so many processes. Those whose process was lost, or the GPU in it, are given
    back to be tried `again`, by a process each; else they are lines, too."""
    if not names:
        return []
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), _begin, (str(device),), max_tasks_per_child=None if again else 1
    )
    running: dict[Future[list[Line]], str] = {
        pool.submit(work, name, compiled=name in compiled): name for name in names
    }
    lost: dict[str, str] = {}
    try:
        for future in as_completed(running, timeout=max(1.0, end - time.time()) + GRACE):
            name = running.pop(future)
            if error := future.exception():
                lost[name] = f"{type(error).__name__}: {error}"[:200]
                continue
            lines = future.result()
            if again and any("CUDA error" in line.note for line in lines):
                lost[name] = ""
            else:
                for line in lines:
                    report.add(line)
    except TimeoutError:
        for name in running.values():
            report.add(Line("methods", name, "out of time", note="did not come back"))
        for process in multiprocessing.active_children():
            process.kill()
    pool.shutdown(wait=False, cancel_futures=True)
    for name, note in () if again else lost.items():
        report.add(Line("methods", name, "error", note=note))
    return list(lost)
