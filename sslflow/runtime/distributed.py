"""Several processes as one: what `torchrun` starts, seen by code that works for a single process as well."""

from __future__ import annotations

import contextlib
import io
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

MEET_S = 1800.0
"""For which process 0 waits for the others when they start; as torch does."""
HAND_OVER_S = 0.02
"""From one look at whether a process has been told to the next."""


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the group of processes that `torchrun` started (NCCL on GPUs, gloo elsewhere); nothing for a single
    process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    store, number, size = next(rendezvous("env://"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=of_this_start(store, number, size), rank=number, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def of_this_start(store: Store, number: int, size: int) -> Store:
    """A part of the store to which none but the processes of this start have written; each of them calls this.

    With `--max-restarts` torchrun keeps its store, and in it the addresses of processes that have gone, which torch
    would take for those of the new ones. No number that all nodes share tells one start from the next, so process 0
    draws a name and hands it to each of the others, under a name that this one has drawn for itself. Raises
    `RuntimeError` where one of them isn't there within `MEET_S` seconds.
    """
    own = str(uuid.uuid4())
    if number:
        store.set(f"process/{number}", own)
        name = store.get(own).decode()
        store.set(f"{name}/{number}", "has it")
        return PrefixStore(name, store)
    deadline = time.monotonic() + MEET_S
    for other in range(1, size):
        while not store.check([f"{own}/{other}"]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"timed out waiting for process {other}")
            store.set(store.get(f"process/{other}").decode(), own)  # may be one that has gone: ask again
            time.sleep(HAND_OVER_S)
    return PrefixStore(own, store)


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; only rank 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def barrier() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        dist.barrier()


def own_part(count: int) -> slice:
    """Which of so many rows are this process's, where each looks at a part: in rank order, one more in the first."""
    part, more = divmod(count, world_size())
    start = rank() * part + min(rank(), more)
    return slice(start, start + part + (rank() < more))


def gather(rows: Tensor) -> Tensor:
    """Rows of all processes, in rank order, `(world_size * n, …)`; gradients flow back to the process that the rows
    came from.

    With a loss on the gathered rows in every process and `average_gradients` afterwards, loss and gradients equal
    those of one process on the whole batch.
    """
    if world_size() == 1:
        return rows
    return _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    """Own, since torch's differentiable exchanges have other names in each version; these two have not. Of the gradient
    each process gets the sum of all and keeps its part: features are small beside a network's gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        ctx.count = len(rows)
        gathered = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
        dist.all_gather(list(gathered.tensor_split(world_size())), rows)
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # The exchange takes memory as it lies, and writes there what others may still read.
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed[rank() * ctx.count : (rank() + 1) * ctx.count]


def gather_uneven(rows: Tensor) -> Tensor:
    """`gather` of as many rows as each process has, which may be none; in all of them, or in none, they need a
    gradient."""
    if world_size() == 1:
        return rows
    counts = torch.zeros(world_size(), dtype=torch.int64, device=rows.device)
    counts[rank()] = len(rows)
    numbers = all_reduce_sum(counts).tolist()
    longest = max(1, *numbers)
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    parts = gather(padded).split(longest)
    return torch.cat([part[:number] for part, number in zip(parts, numbers, strict=True)])


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum of the tensor over all processes, in place; returned for convenience."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast(tensor: Tensor, source: int = 0) -> Tensor:
    """The tensor of process `source`, in place in every process; returned for convenience."""
    if world_size() > 1:
        dist.broadcast(tensor, source)
    return tensor


def from_first(state: Any, device: torch.device) -> Any:
    """What process 0 gives, tensors and plain values, in every process, on the CPU; `device` is one that the processes
    exchange from."""
    if world_size() == 1:
        return state
    buffer = io.BytesIO()
    if rank() == 0:
        torch.save(state, buffer)
    size = int(broadcast(torch.tensor([buffer.tell()], device=device)))
    content = torch.zeros(size, dtype=torch.uint8)
    if rank() == 0:
        content.copy_(torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8))
    sent = broadcast(content.to(device)).cpu()
    return torch.load(io.BytesIO(sent.numpy().tobytes()), map_location="cpu", weights_only=True)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one exchange."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
