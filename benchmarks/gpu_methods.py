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
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.gpu_data import (
    GREY,
    Memory,
    captioned_in_memory,
    clips_in_memory,
    depths_in_memory,
    images_in_memory,
    text_in_memory,
    volumes_in_memory,
)
from benchmarks.gpu_report import BF16_TOLERANCE, SEED, TOLERANCE, Line, Report, measured
from benchmarks.methods import ENCODERS, ONLY_VIT
from sslflow.audiovisual import method as clip_methods
from sslflow.audiovisual.ingredients import of_clips
from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.formats import ClipFormat
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import compute
from sslflow.runtime.rng import derive
from sslflow.settings.params import Over, read
from sslflow.training import method as pretraining_methods
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, of_examples, own_schemas
from sslflow.training.method import Method
from sslflow.views.images import Views

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CPU = torch.device("cpu")
TOLERANCES = {"difference of loss": TOLERANCE, "difference of gradient norm": TOLERANCE}
SMALL_LOSS = 0.1
"""A loss nearer to 0, as a mean of cosines may be at the start, is compared as if it were this large."""
COMPILED = ("images/simclr", "images/byol", "images/mae", "clips/alignment")
CAPTIONED, WITH_DEPTH = ("clip", "virtex"), ("depth_alignment", "depth_prediction")
GRACE = 20.0
"""Seconds after the end of the part in which processes that were told to stop may do so."""


@dataclass(frozen=True)
class Sizes:
    """How large examples are, and how many there are in a step."""

    images: int
    clips: int
    form: ClipFormat
    volumes: int
    side: int
    """Voxels."""
    passages: int
    limit: float
    """Seconds that a line may take."""


FULL = Sizes(64, 16, ClipFormat(36, 96, 12.0, 16_000, 3.0, *GREY), 16, 24, 64, 60.0)
MINI = Sizes(16, 4, ClipFormat(24, 32, 8.0, 8000, 3.0, *GREY), 8, 16, 16, 60.0)


def all_names() -> list[str]:
    """Every method, such as `images/simclr`."""
    kinds = {kind: pretraining_methods.names(kind) for kind in ("images", "text", "volumes")}
    kinds["clips"] = clip_methods.names()
    return [f"{kind}/{name}" for kind, names in kinds.items() for name in names]


@dataclass(frozen=True)
class Subject:
    """A method, built anew with the same weights at each call of `build`, and what it is trained on."""

    build: Callable[[], Method]
    views: Views
    data: Memory

    @property
    def train(self) -> dict[str, Any]:
        """Two steps."""
        return {"epochs": 1, "batch_size": len(self.data) // 2, "lr": 1e-3}


def by_recipe(kind: type[Method], block: str, shared: str = "", recipe: str = "full") -> dict[str, dict[str, Any]]:
    """The recipe's settings of a method (`block`), of its views and of its training (`block.views`, `block.train`);
    where it has none, the constructors' defaults. The shared sections' names begin with `shared`."""
    over = {"views": kind.Views, "train": fit}
    schemas = {f"{block}.{part}": Over(f"{shared}{part}", target) for part, target in over.items()}
    own = {} if shared else own_schemas(block.rpartition(".")[2])
    return read({block: kind, **schemas, **own}, RECIPES / f"{recipe}.yaml")


def of_kind(kind: str, name: str, sizes: Sizes) -> Subject:
    """The method `name` of `images`, `text`, `volumes` or `clips`, with its recipe's settings."""
    return _of_clips(name, sizes) if kind == "clips" else _of_examples(kind, name, sizes)


def _of_examples(kind: str, name: str, sizes: Sizes) -> Subject:
    found, block = pretraining_methods.find(name), f"methods.{name}"
    encoder: Mapping[str, Any] = ENCODERS["vit" if name in ONLY_VIT else "resnet"]
    recipe, data = "full", None
    if kind == "text":
        recipe, data = "text", text_in_memory(2 * sizes.passages, 48, 1000)
        encoder = {"dim": 64, "depth": 2, "heads": 4, "standardise": True}
    elif kind == "volumes":
        recipe, data = "volumes", volumes_in_memory(2 * sizes.volumes, sizes.side)
        encoder = {"name": "vit", "width": 96, "depth": 2} if name == "mae_3d" else {"name": "resnet10", "width": 8}
    elif name in CAPTIONED:
        recipe, data = "captions", captioned_in_memory(2 * sizes.images, 32)
    elif name in WITH_DEPTH:
        recipe, data = "depth", depths_in_memory(2 * sizes.images, 32)
    data = data or images_in_memory(2 * sizes.images, 32)
    settings = by_recipe(found, block, recipe=recipe)
    examples = cast("Dataset[Any]", data)
    words = settings.get(f"{block}.text_encoder", {})
    given = {
        **of_examples(examples, data.pretraining_rows, encoder, text_encoder=words),
        # Of the teacher, what it costs counts here, not what it knows.
        "teacher": lambda: Encoder(data.format.channels, data.format.size, **encoder),
    }
    return _subject(found, given, settings, block, data)


def _of_clips(name: str, sizes: Sizes) -> Subject:
    found, block = clip_methods.find(name), f"clip_methods.{name}"
    data = clips_in_memory(2 * sizes.clips, sizes.form)
    encoders = read({"clip_encoders.picture": Encoder, "clip_encoders.sound": Encoder}, RECIPES / "full.yaml")
    picture, sound = encoders.values()
    given = of_clips(cast("Dataset[ClipFormat]", data), data.pretraining_rows, picture, sound)
    return _subject(found, given, by_recipe(found, block, "clip_"), block, data)


def _subject(found: type[Method], given: Any, settings: Mapping[str, Any], block: str, data: Memory) -> Subject:
    def built() -> Method:
        torch.manual_seed(derive(SEED, "init"))
        return build(found, given, settings[block])

    return Subject(built, found.Views(data.format, **settings[f"{block}.views"]), data)


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
    queue = sorted(names, key=lambda name: (name not in compiled, not name.startswith("clips")))
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
