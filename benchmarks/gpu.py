"""What is to be known of a GPU, in ten minutes: `python -m benchmarks.gpu --out FOLDER`.

1. methods: one training step of every method, of images and of clips, beside the same step on the CPU, in fp32 without
   TF32 and in bf16; and, for a few methods, with `compile`.
2. speed: images a second of the real loop with the real views at 224 pixels, beside the bare model on a tensor that is
   on the device.
3. training: SimCLR on the shipped images of Fashion-MNIST, seconds an epoch, and accuracies beside random weights.

Whatever fails is a line of the table, and so is what there was no time for. `results.json` and `table.md` are written
to FOLDER after every line. `--device cpu --mini` tries all of it in miniature.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import functools
import gc
import math
import os
import platform
import signal
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.methods import ENCODERS, ONLY_VIT
from sslflow.audiovisual import method as clip_methods
from sslflow.audiovisual.ingredients import of_clips
from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.formats import ClipFormat, ImageFormat
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.features.extract import calibrate, extract
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import autocast, compute, layout
from sslflow.runtime.files import write_json, write_text
from sslflow.runtime.rng import derive
from sslflow.settings.params import Over, read
from sslflow.training import method as image_methods
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, of_examples
from sslflow.training.method import Batch, Method
from sslflow.views.images import Views

RECIPE = Path(__file__).resolve().parent.parent / "recipes/full.yaml"
CPU = torch.device("cpu")
SEED = 0
TOLERANCE = 1e-3
"""Relative difference of loss and gradient norm, GPU to CPU, in fp32."""
TOLERANCES = {"difference of loss": TOLERANCE, "difference of gradient norm": TOLERANCE}
BF16_TOLERANCE = 2e-2
"""Of the loss, bf16 on the GPU to fp32 on the CPU; in bf16 on the CPU the worst is 7e-3 off."""
SMALL_LOSS = 0.1
"""A loss nearer to 0, as a mean of cosines may be at the start, is compared as if it were this large."""
COMPILED = ("images/simclr", "images/byol", "images/mae", "clips/alignment")
WARM_UP, BLOCKS = 3, 5
"""Steps before the clock starts, and blocks of steps of which the median counts."""
EPOCH = 8
"""Steps of an epoch whose speed is measured."""
ENDS = {"methods": 0.33, "speed": 0.8, "training": 1.0}
"""Share of the whole time at which a part ends at the latest."""
WORDS = {
    "methods": "One step on the device and on the CPU, from the same weights and views, differences relative to the "
    f"CPU's. *Passed*: at most {TOLERANCE:g} for loss and gradient norm in fp32 (TF32 off), at most {BF16_TOLERANCE:g} "
    "for the loss in bf16. The CPU's own difference between two memory formats is what rounding alone can do. "
    "*graphs*: what `compile` compiled.",
    "speed": "Steps of the real loop with the real views, in bf16 and channels_last, beside forward and backward alone "
    f"on views that lie on the device, and views alone: medians of {BLOCKS} blocks of steps. An image counts once, "
    "however many views it has. *first step* holds the compiling.",
    "training": "SimCLR in bf16 on the shipped images of Fashion-MNIST (in miniature: of digits), and accuracies of "
    "frozen features on their test images.",
}
"""What a part's table shows."""

Outcome = Literal["passed", "failed", "done", "error", "out of time"]


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    images: int
    """In a step of the comparison with the CPU."""
    clips: int
    form: ClipFormat
    block: float
    """Seconds of a block of steps, about."""
    sample: str
    """Shipped images for the training."""
    epochs: int
    encoder: Mapping[str, Any]
    limit: float
    """Seconds that a line of the methods may take."""


GREY = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
FULL = Sizes(
    images=64,
    clips=16,
    form=ClipFormat(36, 96, 12.0, 16_000, 3.0, *GREY),
    block=1.5,
    sample="samples:fashion",
    epochs=20,
    encoder={"name": "resnet18", "stem_stride": 1},
    limit=60.0,
)
MINI = Sizes(
    images=8,
    clips=4,
    form=ClipFormat(24, 32, 8.0, 8000, 3.0, *GREY),
    block=0.0,
    sample="samples:digits/clean",
    epochs=1,
    encoder={"name": "resnet10", "width": 8, "stem_stride": 2},
    limit=60.0,
)


@dataclass(frozen=True)
class Model:
    """What is timed: a method with its constructor's settings, but for those given."""

    method: str
    encoder: Mapping[str, Any]
    side: int
    batch: int
    settings: Mapping[str, Any] = field(default_factory=dict)


MODELS = {
    "simclr, ResNet-50": Model("simclr", {"name": "resnet50"}, 224, 256),
    "dino, ViT-S/16": Model("dino", {"name": "vit_small", "patch_size": 16, "grid": 0}, 224, 256),
}
SMALL_MODELS = {
    "simclr, ResNet": Model("simclr", {"name": "resnet10", "width": 8}, 32, 4, {"projector": (16, 16)}),
    "dino, ViT": Model(
        "dino",
        {"name": "vit_tiny", "width": 32, "depth": 1, "patch_size": 8, "grid": 0},
        32,
        4,
        {"projector": (16, 16), "prototypes": 32},
    ),
}
COMPILED_MODELS = ("dino, ViT-S/16",)


# The table


class TimeIsUp(BaseException):
    """The time that a line may take is over; no `Exception`, so that nothing on its way takes it for a failure of its
    own."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise `TimeIsUp` in the body, which the main thread runs, once so many seconds are over. A call into C is not
    interrupted."""
    armed = True

    def ring(*_: Any) -> None:
        if armed:
            raise TimeIsUp

    former = signal.signal(signal.SIGUSR1, ring)
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        armed = False
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR1, former)


@dataclass
class Line:
    """A line of the table."""

    part: str
    name: str
    outcome: Outcome = "done"
    values: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""


class Report:
    """The table, which is in the folder `out` as soon as a line is added, and the clock: `seconds` for all parts."""

    LEAST = 1.0
    """Seconds for which no line is begun."""

    def __init__(self, out: Path, seconds: float, facts: Mapping[str, Any]) -> None:
        self.out, self.seconds, self.facts = out, seconds, facts
        self.started = time.monotonic()
        self.lines: list[Line] = []

    def left(self, part: str) -> float:
        """Seconds until the part has to end."""
        return self.started + ENDS[part] * self.seconds - time.monotonic()

    def measure(self, part: str, name: str, work: Callable[[Line], None], most: float = math.inf) -> None:
        """Add the line that `work` fills in, in at most `most` seconds and what is left of its part's time."""
        line, started = Line(part, name), time.monotonic()
        seconds = min(most, self.left(part))
        if seconds < self.LEAST:
            line.outcome, line.note = "out of time", "not begun"
        else:
            try:
                with limit(seconds):
                    work(line)
            except TimeIsUp:
                line.outcome, line.note = "out of time", f"stopped after {seconds:.1f} s"
            except Exception as error:
                traceback.print_exc()
                line.outcome, line.note = "error", " ".join(f"{type(error).__name__}: {error}".split())[:200]
        line.seconds = time.monotonic() - started
        broken = [key for key, value in line.values.items() if not math.isfinite(value)]
        if broken:
            line.outcome, line.note = "error", f"not finite: {', '.join(broken)}"
            line.values = {key: value for key, value in line.values.items() if key not in broken}
        self.lines.append(line)
        said = ", ".join(f"{key} {number(key, value)}" for key, value in line.values.items())
        print(f"{part}  {name}  {line.outcome} in {line.seconds:.1f} s  {said}  {line.note}".rstrip(), flush=True)
        self.write()
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()

    def write(self) -> None:
        """Both files, with the lines so far."""
        taken = time.monotonic() - self.started
        facts = {**self.facts, "seconds": taken, "of": self.seconds}
        write_json(self.out / "results.json", {"facts": facts, "lines": [asdict(line) for line in self.lines]})
        write_text(self.out / "table.md", "\n".join(self.table(facts)) + "\n")

    def table(self, facts: Mapping[str, Any]) -> Iterator[str]:
        """The lines in Markdown, a table for each part."""
        yield f"{facts['machine']}; {facts['date']}. {facts['seconds']:.0f} s of {facts['of']:.0f} s."
        for part in dict.fromkeys(line.part for line in self.lines):
            lines = [line for line in self.lines if line.part == part]
            columns = list(dict.fromkeys(key for line in lines for key in line.values))
            yield f"\n### {part}\n\n{WORDS[part]}\n"
            yield f"| | {' | '.join(['outcome', *columns, 'seconds', 'note'])} |"
            yield "|" + "---|" * (len(columns) + 4)
            for line in lines:
                cells = [number(key, line.values[key]) if key in line.values else "" for key in columns]
                cells = [line.name, line.outcome, *cells, f"{line.seconds:.1f}", line.note.replace("|", "/")]
                yield f"| {' | '.join(cells)} |"


def number(key: str, value: float) -> str:
    """A value of the table as it is printed."""
    if "difference" in key:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# Data in memory


class Memory:
    """Examples in memory, as `fit` reads them."""

    def __init__(self, form: ImageFormat | ClipFormat, **fields: Tensor) -> None:
        self.format, self.fields = form, Fields(**fields)
        self.labels = np.arange(len(self.fields)) % 4

    def __len__(self) -> int:
        return len(self.fields)

    @property
    def pretraining_rows(self) -> np.ndarray:
        return np.arange(len(self))

    def read(self, rows: np.ndarray) -> Fields:
        return self.fields[torch.from_numpy(rows)]


def pictures(count: int, channels: int, side: int) -> Tensor:
    """Smooth images with a little noise, the same at each call: uint8 `(count, channels, side, side)`."""
    numbers = torch.Generator().manual_seed(derive(SEED, "pictures"))
    found = torch.empty(count, channels, side, side, dtype=torch.uint8)
    for part in found.split(64):
        coarse = torch.rand(len(part), channels, 5, 5, generator=numbers)
        smooth = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
        part.copy_((smooth + 0.05 * torch.randn(smooth.shape, generator=numbers)).clamp(0, 1) * 255)
    return found


def images_in_memory(count: int, side: int, times: int = 1) -> Memory:
    """So many colour images, each so many times."""
    return Memory(ImageFormat(3, side, *GREY), images=pictures(count, 3, side).repeat(times, 1, 1, 1))


def clips_in_memory(count: int, form: ClipFormat) -> Memory:
    """Clips in which a picture moves, with a tone that swells and fades, two of each source."""
    wide = pictures(count, 3, 2 * form.side)
    steps = (torch.linspace(0, 1, form.frames) * form.side).long().tolist()
    frames = torch.stack([wide[:, :, step : step + form.side, step : step + form.side] for step in steps], dim=1)
    times = torch.arange(form.samples) / form.rate
    tones = 200.0 * 1.15 ** torch.arange(count)[:, None]
    tone = (2 * math.pi * tones * times).sin() * (2 * math.pi * (0.5 + 0.1 * tones / 200) * times).sin() ** 2
    noise = torch.randn(tone.shape, generator=torch.Generator().manual_seed(derive(SEED, "noise")))
    sound = ((0.5 * tone + 0.01 * noise) * 32767).clamp(-32768, 32767).to(torch.int16)
    return Memory(form, frames=frames, sound=sound, groups=torch.arange(count) // 2)


# Methods: a step against the CPU


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


def by_recipe(kind: type[Method], block: str, shared: str = "") -> dict[str, dict[str, Any]]:
    """The recipe's settings of a method (`block`), of its views and of its training (`block.views`, `block.train`);
    where it has none, the constructors' defaults. The shared sections' names begin with `shared`."""
    over = {"views": kind.Views, "train": fit}
    schemas = {f"{block}.{part}": Over(f"{shared}{part}", target) for part, target in over.items()}
    return read({block: kind, **schemas}, RECIPE)


def of_kind(kind: str, name: str, sizes: Sizes) -> Subject:
    """The method `name` of `images` or of `clips`, with the recipe's settings."""
    methods, block, shared = {
        "images": (image_methods, f"methods.{name}", ""),
        "clips": (clip_methods, f"clip_methods.{name}", "clip_"),
    }[kind]
    found = methods.find(name)
    settings = by_recipe(found, block, shared)
    if kind == "images":
        data = images_in_memory(2 * sizes.images, 32)
        encoder = ENCODERS["vit" if name in ONLY_VIT else "resnet"]
        # Of the teacher, what it costs counts here, not what it knows.
        images = cast("Dataset[ImageFormat]", data)
        given = {
            **of_examples(images, images.pretraining_rows, encoder),
            "teacher": lambda: Encoder(images.format.channels, images.format.size, **encoder),
        }
    else:
        data = clips_in_memory(2 * sizes.clips, sizes.form)
        encoders = read({"clip_encoders.picture": Encoder, "clip_encoders.sound": Encoder}, RECIPE)
        picture, sound = encoders.values()
        given = of_clips(cast("Dataset[ClipFormat]", data), data.pretraining_rows, picture, sound)

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
    run = fit(method, views, subject.data, device, SEED, state, **{**subject.train, **settings})
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


def methods(report: Report, device: torch.device, sizes: Sizes, names: Sequence[str], compiled: Sequence[str]) -> None:
    """A line for each of the methods, such as `images/simclr`, and another for those to compile, after all others."""
    known: dict[str, tuple[Subject, Any, Signs]] = {}

    def plain(name: str, line: Line) -> None:
        kind, method = name.split("/")
        subject = of_kind(kind, method, sizes)
        found = compare(subject, device, line)
        if name in compiled:
            known[name] = subject, *found

    def with_compile(name: str, line: Line) -> None:
        if name not in known:
            raise ValueError("there is no step on the CPU to compare with")
        subject, state, reference = known[name]
        compare_compiled(subject, device, state, reference, line)

    with without_tf32():
        for name in names:
            report.measure("methods", name, functools.partial(plain, name), sizes.limit)
        for name in compiled:
            report.measure("methods", f"{name}, compiled", functools.partial(with_compile, name), sizes.limit)


# Speed: images a second


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


def speed(model: Model, device: torch.device, compiled: bool, block: float, batch: int, line: Line) -> None:
    """Steps of the real loop, and the bare forward and backward pass of the same method on views on the device."""
    kind = image_methods.find(model.method)
    data = images_in_memory(batch, model.side, EPOCH)
    torch.manual_seed(derive(SEED, "init"))
    method = build(kind, {"encoder": lambda: Encoder(3, model.side, **model.encoder)}, model.settings)
    views = kind.Views(data.format)
    if compiled:
        torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = fit(
        method, views, data, device, SEED,
        epochs=10**6, batch_size=batch, lr=1e-4, precision="bf16", memory_format="channels_last", compile=compiled,
    )  # fmt: skip
    with contextlib.closing(cast(Any, run)):
        line.values |= {"batch": batch, "first step, s": timed(lambda: next(run), 1, device)}
        real = pace(lambda: next(run), device, block)
        line.values["images/s"] = batch / real
        if device.type == "cuda":
            line.values["peak memory, GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
        fields = data.read(data.pretraining_rows[:batch]).to(device)
        line.values["views alone, images/s"] = batch / pace(lambda: views(fields), device, block)
        made = tuple(view.contiguous(memory_format=layout("channels_last")) for view in views(fields))
        ready = Batch(made, torch.arange(batch, device=device), 0.0)

        def bare() -> None:
            method.zero_grad()
            with autocast(device, "bf16"):
                loss = method.training_step(ready)["loss"]
            loss.backward()

        alone = pace(bare, device, block)
        line.values |= {"bare, images/s": batch / alone, "step : bare": real / alone}


def speed_that_fits(model: Model, device: torch.device, compiled: bool, block: float, line: Line) -> None:
    """`speed` with the model's batch, or half of it as often as memory asks for."""
    batch = model.batch
    while True:
        try:
            return speed(model, device, compiled, block, batch, line)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2
        line.values.clear()
        gc.collect()
        torch.cuda.empty_cache()


def speeds(
    report: Report, device: torch.device, models: Mapping[str, Model], compiled: Sequence[str], block: float
) -> None:
    """A line for each of the models, and another for those to compile."""
    for name, model in models.items():
        for title, compiling in ((name, False), (f"{name}, compiled", True)):
            if not compiling or name in compiled:
                work = functools.partial(speed_that_fits, model, device, compiling, block)
                report.measure("speed", title, work)


# Training to a score


def scores(encoder: Encoder, dataset: Dataset, device: torch.device, line: Line) -> None:
    """Accuracies on the test images, in %, by kNN and by a linear classifier on the frozen features."""
    settings = read({"probe.knn": knn_predict, "probe.linear": fit_linear}, RECIPE)
    train, test = (dataset.labelled_rows(split) for split in (TRAIN, TEST))
    features, asked = (torch.from_numpy(extract(encoder, dataset, rows, device)).to(device) for rows in (train, test))
    labels, right = (torch.from_numpy(dataset.labels[rows]).to(device) for rows in (train, test))
    classes = len(dataset.classes)
    neighbours = knn_predict(features, labels, asked, classes, **settings["probe.knn"])
    linear = fit_linear(features, labels, classes, derive(SEED, "probe"), **settings["probe.linear"])
    for name, predicted in (("kNN, %", neighbours), ("linear, %", linear.predict(asked))):
        line.values[name] = 100 * float((predicted == right).float().mean())
    if not linear.converged:
        line.note = "the linear classifier did not converge"


def train(dataset: Dataset, device: torch.device, sizes: Sizes, left: Callable[[], float], line: Line) -> None:
    """SimCLR with the recipe's settings in bf16, then its scores; ended early where `left()` seconds are too few for
    another epoch and the scores, for which a third of the time is kept."""
    kind, block = image_methods.find("simclr"), "methods.simclr"
    settings = by_recipe(kind, block)
    torch.manual_seed(derive(SEED, "init"))
    method = build(kind, of_examples(dataset, dataset.pretraining_rows, sizes.encoder), settings[block])
    views = kind.Views(dataset.format, **settings[f"{block}.views"])
    how = settings[f"{block}.train"] | {"epochs": sizes.epochs, "precision": "bf16"}
    kept, took, loss = left() / 3, [], math.nan
    started = time.perf_counter()
    with contextlib.closing(cast(Any, fit(method, views, dataset, device, SEED, **how))) as run:
        for step in run:
            if step.epoch == round(step.epoch):
                synchronize(device)
                took.append(time.perf_counter() - started)
                started, loss = time.perf_counter(), float(step.losses["loss"])
                if left() < kept + 1.5 * took[-1]:
                    break
    # The first epoch pays for what is set up once.
    epoch = statistics.median(took[1:] or took)
    images = step.batch_size * (step.steps // sizes.epochs)
    line.values |= {"epochs": len(took), "seconds an epoch": epoch, "images/s": images / epoch, "last loss": loss}
    calibrate(method.encoder, dataset, dataset.pretraining_rows, device)
    scores(method.encoder, dataset, device, line)
    if len(took) < sizes.epochs:
        line.note = "; ".join(filter(None, [line.note, f"ended after {len(took)} epochs of {sizes.epochs}"]))


def training(report: Report, dataset: Callable[[], Dataset], device: torch.device, sizes: Sizes) -> None:
    """Two lines: random weights, and a training from them."""
    dataset = functools.cache(dataset)

    def random(line: Line) -> None:
        torch.manual_seed(derive(SEED, "init"))
        form = dataset().format
        scores(Encoder(form.channels, form.size, **sizes.encoder), dataset(), device, line)

    report.measure("training", "random weights", random)
    report.measure(
        "training", "simclr", lambda line: train(dataset(), device, sizes, lambda: report.left("training"), line)
    )


def shipped(sample: str, folder: Path) -> Dataset:
    """Shipped grey images of 28 pixels, prepared in the folder."""
    prepare(folder, lambda line: None, source=sample, image_size=28, channels=1, workers=min(4, os.cpu_count() or 1))
    return Dataset(folder)


def machine(device: torch.device) -> str:
    """The processor that is measured, and versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, no GPU"
    return f"{name}, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and table.md")
    parser.add_argument("--seconds", type=float, default=540, help="for all parts; what doesn't fit is left out")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--parts", nargs="+", choices=ENDS, default=list(ENDS))
    parser.add_argument("--mini", action="store_true", help="tiny sizes, to try the script")
    asked = parser.parse_args()
    try:
        device = compute(device=asked.device)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    sizes, models = (MINI, SMALL_MODELS) if asked.mini else (FULL, MODELS)
    names = [f"images/{name}" for name in image_methods.names()] + [f"clips/{name}" for name in clip_methods.names()]
    date = str(datetime.datetime.now(datetime.UTC).date())
    report = Report(asked.out, asked.seconds, {"machine": machine(device), "date": date, "mini": asked.mini})
    print(report.facts["machine"], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if "methods" in asked.parts:
            methods(report, device, sizes, names, () if asked.mini else COMPILED)
        if "speed" in asked.parts:
            speeds(report, device, models, COMPILED_MODELS, sizes.block)
        if "training" in asked.parts:
            training(report, lambda: shipped(sizes.sample, Path(folder) / "prepared"), device, sizes)
    print((asked.out / "table.md").read_text(encoding="utf-8"))
    raise SystemExit(0 if all(line.outcome in ("passed", "done") for line in report.lines) else 1)


if __name__ == "__main__":
    main()
