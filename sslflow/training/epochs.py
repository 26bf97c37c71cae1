"""Which rows each step of a run sees, in which order, read ahead."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.data.fields import Fields, Readable
from sslflow.runtime.distributed import rank, world_size

PART = 4096
"""Examples that are read at a time where all are kept."""

Reader = Callable[[np.ndarray, int], Fields]
"""Rows of a data set, and the number of the batch that they are, to what is needed of them."""


class UnfitBatch(ValueError):
    """A batch that the processes can't share, or too small for what normalises over it."""


@dataclass(frozen=True)
class Epochs:
    """The rows of a run in batches of one size over all processes; a last batch that is not full is left out."""

    dataset: Readable
    rows: np.ndarray
    batch_size: int
    device: torch.device
    resident: bool = False
    """Whether all examples are kept on the device, so that steps read nothing."""

    def __post_init__(self) -> None:
        """Raises `UnfitBatch` for a batch that the processes can't share."""
        if not self.batch_size:
            raise UnfitBatch(
                f"{len(self.rows)} examples are fewer than {world_size()} processes (run.launch): start fewer"
            )
        if self.batch_size % world_size():
            raise UnfitBatch(
                f"{self.batch_size} can't be shared by {world_size()} processes (run.launch): choose a multiple of "
                f"{world_size()}"
            )

    @property
    def steps(self) -> int:
        """Of each epoch."""
        return len(self.rows) // self.batch_size

    def batches(self, order: Tensor, first: int, read: Reader) -> Iterator[tuple[Tensor, Fields]]:
        """This process's share of each batch of an epoch, from batch `first` on, on the device: which of `rows` it
        holds, int64, and what was read of them. `order` is that of the epoch, int64 `(rows,)`; a thread reads the next
        batch from the disk meanwhile."""
        if self.resident:
            order = order.to(self.device)  # once an epoch: each copy waits for the device to be done with all it has
            for batch in range(first, self.steps):
                numbers = self._mine(order, batch)
                yield numbers, self._kept[numbers]
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, order, first, read) if first < self.steps else None
            for batch in range(first, self.steps):
                assert ahead is not None
                numbers, fields = ahead.result()
                numbers, fields = numbers.to(self.device, non_blocking=True), fields.to(self.device, non_blocking=True)
                ahead = reader.submit(self._read, order, batch + 1, read) if batch + 1 < self.steps else None
                yield numbers, fields

    def _mine(self, order: Tensor, batch: int) -> Tensor:
        mine = self.batch_size // world_size()
        start = batch * self.batch_size + rank() * mine
        return order[start : start + mine]

    @functools.cached_property
    def _kept(self) -> Fields:
        """All examples, on the device. Raises `ValueError` where they take more than half of the memory that a GPU has
        left."""
        one = self.dataset.read(self.rows[:1])
        size = len(self.rows) * sum(one[name].nbytes for name in one)
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else math.inf
        if size > free / 2:
            raise ValueError(
                f"resident: {len(self.rows):,} examples are {size / 2**30:.1f} GiB, and the GPU has {free / 2**30:.1f} "
                "GiB left, of which the training needs half or more; set train.resident to false"
            )
        parts = np.array_split(self.rows, -(-len(self.rows) // PART))
        read = [self.dataset.read(part).to(self.device) for part in parts]
        return Fields(**{name: torch.cat([part[name] for part in read]) for name in one})

    def _read(self, order: Tensor, batch: int, read: Reader) -> tuple[Tensor, Fields]:
        numbers = self._mine(order, batch)
        fields = read(self.rows[numbers.numpy()], batch)
        return (numbers.pin_memory(), fields.pin_memory()) if self.device.type == "cuda" else (numbers, fields)
