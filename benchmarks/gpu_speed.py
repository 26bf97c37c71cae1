"""Images a second of the real loop on a GPU, beside what the model and the views take alone, and beside lightly's."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from benchmarks.gpu_data import images_in_memory
from benchmarks.gpu_report import BLOCKS, SEED, LeftOut, Line, Report
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import autocast, layout
from sslflow.runtime.rng import derive
from sslflow.training import method as image_methods
from sslflow.training.fit import fit
from sslflow.training.ingredients import build
from sslflow.training.method import Batch, Method

WARM_UP = 3
"""Steps before the clock starts."""
OF_FIELD = ("stable_pretraining",)
"""What might stand beside ours and is looked for."""


@dataclass(frozen=True)
class Model:
    """What is timed: a method with its constructor's settings, but for those given."""

    method: str
    encoder: Mapping[str, Any]
    side: int
    batch: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 8
    """Of an epoch."""


@dataclass(frozen=True)
class Asked:
    """Which models are timed, by names, and which of them in what other ways."""

    models: Mapping[str, Model]
    compiled: tuple[str, ...]
    resident: tuple[str, ...]
    lightly: tuple[str, ...]
    block: float
    """Seconds of a block of steps, about."""


VIT = {"name": "vit_small", "patch_size": 16, "grid": 0}
FULL = Asked(
    {
        "simclr, ResNet-50": Model("simclr", {"name": "resnet50"}, 224, 256),
        "simclr, ViT-S/16": Model("simclr", VIT, 224, 256),
        "simclr, ResNet-18, 32 px": Model("simclr", {"name": "resnet18", "stem_stride": 1}, 32, 512, steps=97),
        "dino, ViT-S/16": Model("dino", VIT, 224, 256),
    },
    compiled=("dino, ViT-S/16",),
    resident=("simclr, ResNet-50", "simclr, ResNet-18, 32 px"),
    lightly=("simclr, ResNet-50", "dino, ViT-S/16"),
    block=0.7,
)
SMALL = Asked(
    {
        "simclr, ResNet": Model("simclr", {"name": "resnet10", "width": 8}, 32, 4, {"projector": (16, 16)}),
        "dino, ViT": Model(
            "dino",
            {"name": "vit_tiny", "width": 32, "depth": 1, "patch_size": 8, "grid": 0},
            32,
            4,
            {"projector": (16, 16), "prototypes": 32},
        ),
    },
    compiled=(),
    resident=("simclr, ResNet",),
    lightly=("simclr, ResNet", "dino, ViT"),
    block=0.0,
)


def timed(run: Callable[[], Any], count: int, device: torch.device) -> float:
    """Seconds of one of so many runs."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(count):
        run()
    synchronize(device)
    return (time.perf_counter() - started) / count


def synchronize(device: torch.device) -> None:
    """Wait for what the device has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pace(run: Callable[[], Any], device: torch.device, block: float) -> float:
    """Seconds of a run: the median over blocks of about so many seconds."""
    timed(run, WARM_UP, device)
    count = max(1, round(block / timed(run, 1, device)))
    return statistics.median(timed(run, count, device) for _ in range(BLOCKS))


def waits(run: Callable[[], Any], device: torch.device) -> int:
    """How often a run waits for the GPU to be done with all it has; where, is printed."""
    kept = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(kept)
    places = Counter(f"{one.filename}:{one.lineno}" for one in seen if "synchroniz" in str(one.message))
    for place, times in places.most_common():
        print(f"  waits {times} x at {place}", flush=True)
    return places.total()


def made(model: Model) -> Method:
    """The method with random weights."""
    torch.manual_seed(derive(SEED, "init"))
    kind = image_methods.find(model.method)
    return build(kind, {"encoder": lambda: Encoder(3, model.side, **model.encoder)}, model.settings)


def forward_backward(method: Any, step: Callable[[], torch.Tensor], device: torch.device) -> None:
    """Both passes of a loss, in bf16."""
    method.zero_grad()
    with autocast(device, "bf16"):
        loss = step()
    loss.backward()


def speed(model: Model, device: torch.device, block: float, batch: int, line: Line, **settings: Any) -> None:
    """Steps of the real loop, with the `settings` of `fit`, and, but for `resident`, the views alone and the bare
    forward and backward pass of the same method on views on the device."""
    data = images_in_memory(batch, model.side, model.steps)
    method, views = made(model), image_methods.find(model.method).Views(data.format)
    if settings.get("compile"):
        torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = fit(
        method, views, cast(Any, data), device, SEED,
        epochs=10**6, batch_size=batch, lr=1e-4, precision="bf16", memory_format="channels_last", **settings,
    )  # fmt: skip
    with contextlib.closing(cast(Any, run)):
        line.values |= {"batch": batch, "first step, s": timed(lambda: next(run), 1, device)}
        real = pace(lambda: next(run), device, block)
        line.values["images/s"] = batch / real
        if device.type == "cuda":
            line.values["peak memory, GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
            line.values["waits"] = waits(lambda: next(run), device)
        if settings.get("resident"):
            return  # what is left is the same for both
        fields = data.read(data.pretraining_rows[:batch]).to(device)
        line.values["views alone, images/s"] = batch / pace(lambda: views(fields), device, block)
        ready = tuple(view.contiguous(memory_format=layout("channels_last")) for view in views(fields))
        seen = Batch(ready, torch.arange(batch, device=device), 0.0)
        alone = pace(
            lambda: forward_backward(method, lambda: method.training_step(seen)["loss"], device), device, block
        )
        line.values |= {"bare, images/s": batch / alone, "step : bare": real / alone}


def that_fits(work: Callable[..., None], model: Model, line: Line, **settings: Any) -> None:
    """`work` with the model's batch, or half of it as often as memory asks for."""
    batch = model.batch
    while True:
        try:
            return work(model=model, batch=batch, line=line, **settings)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2
        line.values.clear()
        gc.collect()
        torch.cuda.empty_cache()


def optimiser(model: Model, device: torch.device, line: Line) -> None:
    """A step of AdamW alone on the weights of a method, fused, as runs on GPUs have it, and not."""
    method = made(model).to(device)
    for parameter in method.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    for title, fused in (("fused, ms", True), ("not fused, ms", False)):
        updates = torch.optim.AdamW(method.parameters(), lr=1e-4, fused=fused)
        line.values[title] = 1e3 * pace(updates.step, device, 0.1)


def beside_lightly(report: Report, name: str, model: Model, device: torch.device, threads: int, line: Line) -> None:
    """Lightly's loop for the same encoder, and how many times as fast ours was."""
    if importlib.util.find_spec("lightly") is None:
        raise LeftOut("lightly is not installed")
    from benchmarks import gpu_lightly

    that_fits(functools.partial(gpu_lightly.speed, device=device, threads=threads), model, line)
    ours = report.value(name, "images/s")
    if ours is not None:
        line.values["ours : lightly"] = ours / line.values["images/s"]


def field_of(name: str, line: Line) -> None:
    """Why another library has no number here."""
    try:
        __import__(name)
    except ImportError as error:
        raise LeftOut(f"it can't be imported: {error}") from None
    raise LeftOut("installed, but not timed: its trainings are configured by Lightning")


def speeds(report: Report, device: torch.device, asked: Asked, threads: int) -> None:
    """A line for each of the models, for lightly's loop beside it, and for the other ways to run it."""

    def ours(name: str, title: str, **settings: Any) -> None:
        work = functools.partial(speed, device=device, block=asked.block, **settings)
        report.measure("speed", title, lambda line: that_fits(work, asked.models[name], line))

    for name, model in asked.models.items():
        ours(name, name)
        if name in asked.resident:
            ours(name, f"{name}, resident", resident=True)
        if name in asked.lightly:
            other = functools.partial(beside_lightly, report, name, model, device, threads)
            report.measure("speed", f"lightly: {name}", other)
    for name in asked.resident:
        report.measure("speed", f"AdamW alone: {name}", functools.partial(optimiser, asked.models[name], device))
    for name in OF_FIELD:
        report.measure("speed", name, functools.partial(field_of, name))
    for name in asked.compiled:  # at the end: they take longest
        ours(name, f"{name}, compiled", compile=True)
