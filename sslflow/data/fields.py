"""What several examples hold, by name: images, or frames and sounds, or whatever else a data set has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, overload

import numpy as np
import torch
from torch import Tensor


class Fields:
    """A frozen mapping from names to tensors `(n, …)`; row i of every tensor belongs to example i.

    Images are `Fields(images=…)`, uint8 `(n, channels, size, size)`; clips are `Fields(frames=…, sound=…, groups=…)`,
    uint8 `(n, frames, 3, side, side)`, int16 `(n, samples)` and int64 `(n,)`; where only some frames of each were read,
    `frame_numbers`, int64 `(n, k)`, says which. `groups` numbers what a split never
    divides, such as the video that a clip was cut from. Can be moved as a tensor can.
    """

    __slots__ = ("_tensors",)

    def __init__(self, **tensors: Tensor) -> None:
        """Raises `ValueError` where the tensors don't hold as many examples each."""
        if len({len(tensor) for tensor in tensors.values()}) != 1:
            held = ", ".join(f"{name}: {len(tensor)}" for name, tensor in tensors.items()) or "no field at all"
            raise ValueError(f"expected fields of the same examples, found {held}")
        self._tensors = tensors

    def __len__(self) -> int:
        """The number of examples."""
        return len(next(iter(self._tensors.values())))

    def __iter__(self) -> Iterator[str]:
        """The fields' names."""
        return iter(self._tensors)

    @overload
    def __getitem__(self, key: str) -> Tensor: ...

    @overload
    def __getitem__(self, key: slice | Tensor) -> Fields: ...

    def __getitem__(self, key: str | slice | Tensor) -> Tensor | Fields:
        """The field of that name, or all fields of the rows given: a slice, or int64 or bool `(m,)`."""
        if isinstance(key, str):
            return self._tensors[key]
        return self._each(lambda tensor: tensor[key])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self._tensors.values())).device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Fields:
        """The same on the device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Fields:
        """The same in memory that a GPU can copy from while it computes; what is on a GPU stays there."""
        return self._each(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Fields:
        return Fields(**{name: change(tensor) for name, tensor in self._tensors.items()})


class Readable(Protocol):
    """What is needed of a data set to train on it, and to look at it."""

    format: Any
    """With the `mean` and `std` of its images."""

    @property
    def pretraining_rows(self) -> np.ndarray:
        """Rows to train on."""
        ...

    def read(self, rows: np.ndarray) -> Fields:
        """What is in the rows given, in that order."""
        ...


def stills(fields: Fields) -> Tensor:
    """An image of each example, uint8 `(n, channels, size, size)`: of a clip the frame in its middle."""
    if "images" in list(fields):
        return fields["images"]
    return fields["frames"][:, fields["frames"].shape[1] // 2]
