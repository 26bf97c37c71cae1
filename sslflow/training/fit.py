"""The training loop, a generator: logging, checkpoints and early stopping are the body of the caller's `for`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslflow.data.fields import Fields, Readable
from sslflow.features.extract import extract
from sslflow.networks.batch_norm import batch_norms
from sslflow.networks.encoder import Encoder, leave_out
from sslflow.networks.shared_norm import share_norms
from sslflow.runtime.device import MemoryFormat, Precision, laid_out, place
from sslflow.runtime.distributed import rank, world_size
from sslflow.runtime.rng import derive, generator
from sslflow.settings.params import Below, Count, Fraction, NonNegative, Rate
from sslflow.training.continued import Continued
from sslflow.training.epochs import Epochs, UnfitBatch
from sslflow.training.gradients import Gradients
from sslflow.training.method import Losses, Method, Pool
from sslflow.training.optim import OptimizerName, make_optimizer, warmup_cosine
from sslflow.training.schedules import cosine
from sslflow.views.images import Views
from sslflow.views.strengths import Share


class NonFiniteLoss(ValueError):
    """The loss became NaN or infinite."""


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
    """Everything that `fit` needs to go on from here, until the next step is done. Raises `NonFiniteLoss` rather than
    give out a broken state."""


class State:
    """What changes from step to step."""

    def __init__(self, method: Method, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self.method, self.optimizer, self.steps = method, optimizer, steps
        self.done = 0
        self.loss = torch.zeros(())
        self._finite = torch.ones((), dtype=torch.bool)
        self._arrived: torch.cuda.Event | None = None

    def ended(self, step: int, loss: Tensor) -> None:
        """So many steps are done, the last one with this loss."""
        self.done, self.loss, self._finite = step, loss, loss.isfinite()
        if loss.is_cuda:
            # Sent now: asked for later, the answer would queue behind all that the device has got to do since.
            self._finite = self._finite.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def load(self, saved: dict[str, Any]) -> None:
        """Go back to what `save` gave."""
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.done = saved["step"]

    def save(self) -> dict[str, Any]:
        """All of it. Raises `NonFiniteLoss`."""
        self.require_finite()
        return {"step": self.done, "method": self.method.state_dict(), "optimizer": self.optimizer.state_dict()}

    def require_finite(self) -> None:
        """Raises `NonFiniteLoss` if the last loss is not finite."""
        if self._arrived:
            self._arrived.synchronize()
        if not self._finite:
            raise NonFiniteLoss(f"the loss is {self.loss.item()} at step {self.done} of {self.steps}")


def fit(
    method: Method,
    views: Views,
    dataset: Readable,
    device: torch.device,
    seed: int,
    resume: dict[str, Any] | None = None,
    rows: np.ndarray | None = None,
    continued: Continued | None = None,
    *,
    epochs: Count,
    batch_size: Count,
    optimizer: OptimizerName = "adamw",
    lr: Rate,
    weight_decay: NonNegative = 1e-4,
    weight_decay_end: NonNegative | None = None,
    momentum: Fraction = 0.9,
    betas: tuple[Below, Below] = (0.9, 0.999),
    layer_decay: Share = 1.0,
    warmup: Fraction = 0.1,
    clip: NonNegative = 0.0,
    accumulate: Count = 1,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
    compile: bool = False,
    resident: bool = False,
    token_dropout: Below = 0.0,
) -> Iterator[Step]:
    """Train `method` on the pretraining images of `dataset`, or on the `rows` given, yielding after each step.

    `batch_size` counts images over all processes; a last batch that is not full is left out. `warmup` is a share of
    the steps, `clip` the largest gradient norm (0: none), `accumulate` the number of parts in which a batch passes
    through the method, `compile` compiles the encoders, `resident` keeps all examples in the memory of the device,
    `token_dropout` is the share of patches that ViTs leave out, students and teachers, of each image others;
    `weight_decay` moves along half a cosine to `weight_decay_end` where one is given; `momentum` is that of SGD and
    LARS, `betas` are AdamW's, and with a `layer_decay` below 1 each layer of an encoder learns with so much of the rate
    of the layer above it. `resume` is a state that an earlier `Step` gave; the run then ends with the same bits as one
    that was never stopped, since every step draws its random
    numbers from its own number. Where `method.encoder` started from weights that exist, `continued` says at which rate
    it learns. Raises `NonFiniteLoss` with the step, and `ValueError` for settings that don't fit together.
    """
    rows = dataset.pretraining_rows if rows is None else rows
    # Fewer examples than a batch: all of them, as far as the processes can share them.
    fits = len(rows) - len(rows) % world_size()
    data = Epochs(dataset, rows, batch_size if batch_size <= len(rows) else fits, device, resident)
    steps = epochs * data.steps
    place(method.train(), device, memory_format)
    views.to(device)
    if world_size() > 1:
        share_norms(method, device)
    _require_company(method, data, accumulate)
    leave_out(method, token_dropout)
    networks = [encoder.network for encoder in method.encoders.values()]
    apart = method.encoder.network if continued else None
    made = make_optimizer(method, optimizer, lr, weight_decay, momentum, betas, layer_decay, networks, apart)
    state = State(method, made, steps)
    if resume is not None:
        state.load(resume)
    if compile:
        for module in method.modules():  # those of teachers, too
            if isinstance(module, Encoder):
                module.compile()
    gradients = Gradients(method, device, precision, accumulate)
    parameters = gradients.parameters

    def read(epoch: int, rows: np.ndarray, batch: int) -> Fields:
        return views.read(dataset, rows, generator(seed, "step", epoch * data.steps + batch, rank()))

    for epoch in range(state.done // data.steps, epochs):
        first = state.done - epoch * data.steps
        if not first:
            torch.manual_seed(derive(seed, "epoch", epoch))
            pool = _pool(method, data, derive(seed, "pool", epoch), precision, memory_format)
            for parameter in method.start_epoch(pool):
                state.optimizer.state.pop(parameter, None)
        order = method.order(len(rows), generator(seed, "order", epoch))
        for numbers, fields in data.batches(order, first, functools.partial(read, epoch)):
            step = state.done
            torch.manual_seed(derive(seed, "step", step, rank()))
            rate = lr * warmup_cosine(step, steps, warmup)
            slow = continued.rate(step, steps, warmup) if continued else rate
            for group in state.optimizer.param_groups:
                group["lr"] = (slow if group.get("apart") else rate) * group.get("lr_scale", 1.0)
                if weight_decay_end is not None and group["weight_decay"]:
                    group["weight_decay"] = cosine(weight_decay, weight_decay_end, step / steps)
            seen = tuple(laid_out(view, memory_format) for view in views(fields))
            state.optimizer.zero_grad()
            losses = gradients(seen, numbers, step / steps)
            if clip:
                nn.utils.clip_grad_norm_(parameters, clip)
            state.optimizer.step()
            method.after_step((step + 1) / steps)
            # Of the step before: by now the device has this one to do while the processor waits for the answer.
            state.require_finite()
            state.ended(step + 1, losses["loss"])
            yield Step(step + 1, steps, data.batch_size, (step + 1) / data.steps, rate, losses, state.save)
    state.require_finite()


def _require_company(method: Method, data: Epochs, parts: int) -> None:
    """Raises `UnfitBatch` where BatchNorm would see a single example at a time."""
    # Its statistics are those of all processes, and each has an example.
    if world_size() == 1 and data.batch_size // parts < 2 and batch_norms(method):
        found = f"{data.batch_size} of {len(data.rows)} examples" + (f" over {parts} parts (accumulate)" * (parts > 1))
        raise UnfitBatch(f"{found} leaves one alone, and BatchNorm needs two: at least {2 * parts}")


def _pool(method: Method, data: Epochs, seed: int, precision: Precision, memory_format: MemoryFormat) -> Pool:
    mine = torch.arange(len(data.rows)).tensor_split(world_size())[rank()]

    def features() -> Tensor:
        found = extract(
            method.encoder, data.dataset, data.rows[mine.numpy()], data.device,
            precision=precision, memory_format=memory_format,
        )  # fmt: skip
        method.train()
        return torch.from_numpy(found).to(data.device)

    return Pool(len(data.rows), mine.to(data.device), features, seed)
