"""Loss and gradients of a step: of a batch in parts, and over several processes."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslflow.runtime.device import Precision, autocast
from sslflow.runtime.distributed import average_gradients, world_size
from sslflow.training.method import Batch, Losses, Method


class TrainingStep(nn.Module):
    """A method whose call is its training step."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> Losses:
        return self.method.training_step(batch)


class Gradients:
    """Called with a batch, it leaves the gradients of the loss, their mean over the processes, in the parameters.

    The batch is seen in `parts`, one after another, whose gradients add up to those of the whole: less of it is in
    memory at a time. With several GPUs gradients are exchanged while the backward pass goes on (`overlapped`), on CPUs
    after it.
    """

    def __init__(
        self, method: Method, device: torch.device, precision: Precision, parts: int = 1, overlapped: bool | None = None
    ) -> None:
        """Raises `ValueError` for parts of a method whose loss is not a mean over them."""
        if parts > 1 and not method.additive:
            raise ValueError(
                f"accumulate is {parts}, and {type(method).__name__} compares the examples of a batch with each other, "
                "or remembers batches: its loss is not the mean over parts of a batch; set accumulate to 1"
            )
        self.device, self.parts = device, parts
        self.precision: Precision = precision
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        self.step: nn.Module = TrainingStep(method)
        if world_size() > 1 and (device.type == "cuda" if overlapped is None else overlapped):
            self.step = DistributedDataParallel(self.step, broadcast_buffers=False)

    def __call__(self, views: tuple[Tensor, ...], rows: Tensor, progress: float) -> Losses:
        """The losses, detached: means over the parts."""
        found: Losses = {}
        sizes = [len(part) for part in rows.tensor_split(self.parts) if len(part)]
        parts = zip(rows.split(sizes), zip(*(view.split(sizes) for view in views), strict=True), strict=True)
        for number, (numbers, seen) in enumerate(parts, start=1):
            share = len(numbers) / len(rows)
            with self._exchange(last=number == len(sizes)):
                with autocast(self.device, self.precision):
                    losses = self.step(Batch(seen, numbers, progress))
                (losses["loss"] * share).backward()
            for name, value in losses.items():
                found[name] = value.detach() * share + found.get(name, 0)
        if not isinstance(self.step, DistributedDataParallel):
            average_gradients(self.parameters)
        return found

    def _exchange(self, last: bool) -> contextlib.AbstractContextManager:
        if isinstance(self.step, DistributedDataParallel) and not last:
            return self.step.no_sync()
        return contextlib.nullcontext()
