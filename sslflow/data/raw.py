"""A batch of clips as they are read from the disk, and what all clips have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sslflow.data.dataset import ImageFormat


@dataclass(frozen=True)
class ClipFormat:
    """What all clips have in common."""

    frames: int
    """Of each clip; frame i is what the video shows at i / `fps` seconds from the clip's start."""
    side: int
    """Pixels: frames are squares of three channels."""
    fps: float
    rate: int
    """Samples of sound a second, one channel."""
    seconds: float
    mean: tuple[float, ...]
    """Of each channel, over the frames of the training clips, as shares of white."""
    std: tuple[float, ...]

    @property
    def samples(self) -> int:
        """Samples of sound of each clip."""
        return round(self.seconds * self.rate)

    @property
    def picture(self) -> ImageFormat:
        """The same of a single frame."""
        return ImageFormat(3, self.side, self.mean, self.std)


@dataclass(frozen=True)
class Raw:
    """Clips as they were decoded. Can be moved as a tensor can, so that the training loop handles it as one."""

    frames: Tensor
    """uint8 `(n, frames, 3, side, side)`."""
    sound: Tensor
    """int16 `(n, samples)`."""
    sources: Tensor
    """Number of each clip's source, int64 `(n,)`: what a split never divides, at the least a whole video. Views need
    it: a clip of the same source is no example of a sound that does not belong to a picture."""

    def __len__(self) -> int:
        return len(self.frames)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Raw:
        """The same clips on the device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Raw:
        """The same clips in memory that a GPU can copy from while it computes."""
        return self._each(Tensor.pin_memory)

    def __getitem__(self, rows: slice | Tensor) -> Raw:
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change) -> Raw:
        return Raw(change(self.frames), change(self.sound), change(self.sources))


class Readable(Protocol):
    """What is trained on: images, or clips. What `read` gives goes to the views as it is, once it is on the device
    (`.to`, `.pin_memory`)."""

    format: Any
    """With the `mean` and `std` of its images."""

    @property
    def pretraining_rows(self) -> np.ndarray:
        """Rows to train on."""
        ...

    def read(self, rows: np.ndarray) -> Any:
        """What is in the rows given, in that order."""
        ...


def stills(read: Tensor | Raw) -> Tensor:
    """An image for each row that was read, uint8 `(n, channels, side, side)`: of a clip the frame in its middle."""
    return read.frames[:, read.frames.shape[1] // 2] if isinstance(read, Raw) else read
