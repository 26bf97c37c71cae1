"""Where arithmetic runs and how it is made repeatable."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import torch
import torch.utils.deterministic as repeatable
from torch import Tensor, nn

from sslflow import gpus, stagelog
from sslflow.settings.params import Natural, closest

Precision = Literal["fp32", "bf16"]
MemoryFormat = Literal["channels_last", "contiguous"]
P = ParamSpec("P")
R = TypeVar("R")


def compute(*, device: str = "auto", threads: Natural = 0) -> torch.device:
    """Set up torch for one process and return its device.

    `device` is `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:1`; under `torchrun` each process takes the
    GPU of its local rank. `threads` is the number of CPU threads, 0 for as many as cores; it is a setting since sums
    over another number of threads differ in their last bits. A stage waits for a GPU that no other stage of this
    machine has, and keeps it to its end. Raises `ValueError` for a device that is not there.
    """
    if stagelog.current:
        stagelog.current.takes(gpus.take(device, stagelog.current.stage, stagelog.current.waits))
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if wrong := usable(device):
        raise ValueError(f"compute.device: {wrong}")
    chosen = torch.device(device)
    if chosen.type == "cuda":
        if chosen.index is None:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    else:
        torch.use_deterministic_algorithms(True)
        # Else torch would write NaN to all memory that it takes, to show who reads what was never written: up to 6 %
        # of a step, and no other bits.
        repeatable.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    return chosen


def usable(device: str) -> str:
    """Empty, or why there is no such device here."""
    try:
        chosen = torch.device("cpu" if device == "auto" else device)
    except RuntimeError:
        chosen = None
    if chosen is not None and chosen.type == "mps":
        return f"{device!r}, but Apple's GPUs have no float64, in which sums are taken here: set it to auto or cpu"
    if chosen is None or chosen.type not in ("cpu", "cuda") or (chosen.type == "cpu" and chosen.index):
        return f"there is no device {device!r}{closest(device, ('auto', 'cpu', 'cuda', 'cuda:0'))}"
    if chosen.type == "cuda" and not torch.cuda.is_available():
        return f"{device!r}, but torch finds no usable GPU here: set it to auto or cpu"
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        return f"{device!r}, but there are {torch.cuda.device_count()} GPUs here, counted from 0"
    return ""


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager:
    """The context in which a model's forward pass runs at `precision`. Raises `ValueError` where it is not
    supported."""
    if precision == "fp32":
        return contextlib.nullcontext()
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("precision is bf16, which this GPU can't do; set it to fp32")
    return torch.autocast(device.type, dtype=torch.bfloat16)


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of tensors, such as a loss: it gets them in float32, or finer, and computes as finely under
    autocast, which would turn its products into bf16, too coarse to be divided by a small temperature."""

    def widened(value: Any) -> Any:
        coarse = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if coarse else value

    call: Callable[..., R] = function

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> R:
        values = [*args, *kwargs.values()]
        kind = next(value.device.type for value in values if isinstance(value, Tensor))
        with torch.autocast(kind, enabled=False):
            return call(*map(widened, args), **{name: widened(value) for name, value in kwargs.items()})

    return inner


def layout(memory_format: MemoryFormat, dimensions: int = 4) -> torch.memory_format:
    """The torch name of a memory format, for tensors of 4 dimensions, images, or of 5, volumes."""
    last = torch.channels_last_3d if dimensions == 5 else torch.channels_last
    return last if memory_format == "channels_last" else torch.contiguous_format


def laid_out(tensor: Tensor, memory_format: MemoryFormat) -> Tensor:
    """Images `(n, c, h, w)` and volumes `(n, c, d, h, w)` in the memory format; tensors of other dimensions as they
    are."""
    dimensions = tensor.ndim
    return tensor.contiguous(memory_format=layout(memory_format, dimensions)) if dimensions in (4, 5) else tensor


def place(module: nn.Module, device: torch.device, memory_format: MemoryFormat) -> None:
    """Move the module's tensors to the device, those of four and five dimensions in the memory format; in place."""
    module.to(device)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = laid_out(tensor.data, memory_format)
