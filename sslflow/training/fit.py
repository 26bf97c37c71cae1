"""The training loop, a generator: logging, checkpoints and early stopping are the body of the caller's `for`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.features.extract import extract
from sslflow.runtime.device import MemoryFormat, Precision, autocast, layout, place
from sslflow.runtime.distributed import average_gradients, rank, world_size
from sslflow.runtime.rng import derive, generator
from sslflow.settings.params import Count, Fraction, NonNegative, Positive
from sslflow.training.method import Batch, Losses, Method, Pool
from sslflow.training.optim import OptimizerName, make_optimizer, warmup_cosine
from sslflow.training.schedules import cosine
from sslflow.views.images import Views


class NonFiniteLoss(ValueError):
    """The loss became NaN or infinite."""


class Readable(Protocol):
    """What is needed of a `Dataset` to train on it."""

    @property
    def pretraining_rows(self) -> np.ndarray:
        """Rows to train on."""
        ...

    def read(self, rows: np.ndarray) -> Fields:
        """What is in the rows given, in that order."""
        ...


@dataclass(frozen=True)
class Step:
    """What one optimiser step did."""

    number: int
    """Steps done, from 1."""
    steps: int
    """Steps of the whole run."""
    batch_size: int
    """Images in each step, over all processes."""
    epoch: float
    """Epochs done, with the share of the present one."""
    lr: float
    losses: Losses
    """Detached scalars, by name, on the device."""
    state: Callable[[], dict[str, Any]]
    """Everything that `fit` needs to go on from here. Raises `NonFiniteLoss` rather than give out a broken state."""


def fit(
    method: Method,
    views: Views,
    dataset: Readable,
    device: torch.device,
    seed: int,
    resume: dict[str, Any] | None = None,
    rows: np.ndarray | None = None,
    *,
    epochs: Count,
    batch_size: Count,
    optimizer: OptimizerName = "adamw",
    lr: Positive,
    weight_decay: NonNegative = 1e-4,
    weight_decay_end: NonNegative | None = None,
    momentum: Fraction = 0.9,
    warmup: Fraction = 0.1,
    clip: NonNegative = 0.0,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
    compile: bool = False,
) -> Iterator[Step]:
    """Train `method` on the pretraining images of `dataset`, or on the `rows` given, yielding after each step.

    `batch_size` counts images over all processes; a last batch that is not full is left out. `warmup` is a share of
    the steps, `clip` the largest gradient norm (0: none), `compile` compiles the encoder; `weight_decay` moves along
    half a cosine to `weight_decay_end` where one is given. `resume` is a state that an earlier `Step` gave; the run
    then ends with the same bits as one that was never stopped, since every step draws its random numbers from its own
    number. Raises `NonFiniteLoss` with the step, and `ValueError` for settings that don't fit together.
    """
    rows = dataset.pretraining_rows if rows is None else rows
    batch_size = min(batch_size, len(rows))
    if batch_size % world_size():
        raise ValueError(f"batch_size {batch_size} can't be shared by {world_size()} processes; choose a multiple")
    per_epoch = len(rows) // batch_size
    steps = epochs * per_epoch

    place(method.train(), device, memory_format)
    views.to(device)
    if device.type == "cuda" and world_size() > 1:
        # timm's own conversion: torch's would drop the activation that some of timm's norms hold.
        from timm.layers.norm_act import convert_sync_batchnorm

        convert_sync_batchnorm(method)
    parameters = [p for p in method.parameters() if p.requires_grad]
    updates = make_optimizer(method, optimizer, lr, weight_decay, momentum)
    done = 0
    if resume is not None:
        method.load_state_dict(resume["method"])
        updates.load_state_dict(resume["optimizer"])
        done = resume["step"]
    if compile:
        method.encoder.compile()

    def pool(epoch: int) -> Pool:
        mine = torch.arange(len(rows)).tensor_split(world_size())[rank()]

        def features() -> Tensor:
            assert isinstance(dataset, Dataset), "features of all images are for methods of images"
            found = extract(
                method.encoder, dataset, rows[mine.numpy()], device, precision=precision, memory_format=memory_format
            )
            method.train()
            return torch.from_numpy(found).to(device)

        return Pool(len(rows), mine.to(device), features, derive(seed, "pool", epoch))

    def epoch_steps(epoch: int, start: int) -> Iterator[tuple[int, Tensor, Fields]]:
        order = method.order(len(rows), generator(seed, "order", epoch))
        mine = batch_size // world_size()

        def rows_of(step: int) -> Tensor:
            first = (step - epoch * per_epoch) * batch_size + rank() * mine
            return order[first : first + mine]

        return _read_ahead(dataset, rows, rows_of, range(start, (epoch + 1) * per_epoch), device)

    def all_steps() -> Iterator[tuple[int, Tensor, Fields]]:
        for epoch in range(done // per_epoch, epochs):
            start = max(done, epoch * per_epoch)
            if start == epoch * per_epoch:
                torch.manual_seed(derive(seed, "epoch", epoch))
                for parameter in method.start_epoch(pool(epoch)):
                    updates.state.pop(parameter, None)
            yield from epoch_steps(epoch, start)

    previous: tuple[int, Tensor] | None = None
    for step, numbers, fields in all_steps():
        torch.manual_seed(derive(seed, "step", step, rank()))
        rate = lr * warmup_cosine(step, steps, warmup)
        for group in updates.param_groups:
            group["lr"] = rate
            if weight_decay_end is not None and group["weight_decay"]:
                group["weight_decay"] = cosine(weight_decay, weight_decay_end, step / steps)
        seen = tuple(_laid_out(view, memory_format) for view in views(fields))
        with autocast(device, precision):
            losses = method.training_step(Batch(seen, numbers, progress=step / steps))
        updates.zero_grad()
        losses["loss"].backward()
        average_gradients(parameters)
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        updates.step()
        method.after_step((step + 1) / steps)

        # Looked at one step late: by then the device has the next step to do while the processor waits for the number.
        if previous is not None:
            _require_finite(*previous, steps)
        previous = step + 1, losses["loss"].detach()

        def state(done: int = step + 1, loss: Tensor = previous[1]) -> dict[str, Any]:
            _require_finite(done, loss, steps)
            return {"step": done, "method": method.state_dict(), "optimizer": updates.state_dict()}

        detached = {name: value.detach() for name, value in losses.items()}
        yield Step(step + 1, steps, batch_size, (step + 1) / per_epoch, rate, detached, state)
    if previous is not None:
        _require_finite(*previous, steps)


def _require_finite(step: int, loss: Tensor, steps: int) -> None:
    if not loss.isfinite():
        raise NonFiniteLoss(f"the loss is {loss.item()} at step {step} of {steps}")


def _laid_out(view: Tensor, memory_format: MemoryFormat) -> Tensor:
    """Images in the memory format; masks and orders as they are."""
    return view.contiguous(memory_format=layout(memory_format)) if view.ndim == 4 else view


def _read_ahead(
    dataset: Readable, rows: np.ndarray, rows_of: Callable[[int], Tensor], steps: range, device: torch.device
) -> Iterator[tuple[int, Tensor, Fields]]:
    """Which of the `rows` each step sees, and what is in them, on the device; a thread reads the next step's from the
    disk meanwhile."""

    def read(step: int) -> tuple[Tensor, Fields]:
        numbers = rows_of(step)
        fields = dataset.read(rows[numbers.numpy()])
        return (numbers.pin_memory(), fields.pin_memory()) if device.type == "cuda" else (numbers, fields)

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, steps[0]) if steps else None
        for step in steps:
            assert ahead is not None
            numbers, fields = ahead.result()
            numbers, fields = numbers.to(device, non_blocking=True), fields.to(device, non_blocking=True)
            ahead = reader.submit(read, step + 1) if step + 1 in steps else None
            yield step, numbers, fields
