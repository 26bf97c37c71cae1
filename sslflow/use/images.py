"""Networks that take image files: with all that is known of how they want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslflow.ingest.images.decode import Background, Decoded, Fit, decode
from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.raster import SixteenBit
from sslflow.ingest.records import Picture

NARROWEST = 1 / 255
"""A standard deviation: images of one colour have no spread to divide by."""


@dataclass(frozen=True)
class Images:
    """What images must be for a network."""

    side: int
    """Pixels: they are squares."""
    channels: int
    mean: tuple[float, ...]
    """Of each channel, as shares of white."""
    std: tuple[float, ...]
    fit: Fit = "crop"
    background: Background = "white"
    sixteen_bit: SixteenBit = "full"

    def decode(self, picture: Picture) -> Decoded:
        """An image file, or its bytes, or pixels, as the network wants it. Raises `Refused` with the reason."""
        return self.decoder(picture)

    @property
    def decoder(self) -> partial[Decoded]:
        """`decode` as worker processes can be given it."""
        kept: dict[str, Any] = {"fit": self.fit, "background": self.background, "sixteen_bit": self.sixteen_bit}
        return partial(decode, size=self.side, channels=self.channels, **kept)


def images_of(side: int, channels: int, facts: Mapping[str, Any]) -> Images:
    """What images must be, by what a file says of how they were read and normalised."""
    kept: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return Images(side, channels, **kept)


class OfImages(nn.Module):
    """A network, in evaluation mode, that takes images of `images.side` pixels as shares of white `(n, channels, side,
    side)`, and normalises them as it was trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, images: Images, name: str) -> None:
        """`name`: what it was opened by."""
        super().__init__()
        self.images = replace(images, std=tuple(max(value, NARROWEST) for value in images.std))
        self.name = name
        self.register_buffer("mean", torch.tensor(self.images.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.images.std).view(1, -1, 1, 1), persistent=False)

    def normalised(self, images: Tensor) -> Tensor:
        """Shares of white with mean 0 and spread 1."""
        return (images - self.mean) / self.std

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.mean.device

    def read(self, picture: Picture | str) -> np.ndarray:
        """An image file as uint8 pixels `(channels, side, side)`. Raises `ValueError` for one that can't be used."""
        return self.decoded(picture).pixels

    def decoded(self, picture: Picture | str) -> Decoded:
        """The same, with the size that the image has. Raises `ValueError` for one that can't be used."""
        place = Path(picture) if isinstance(picture, str) else picture
        try:
            return self.images.decode(place)
        except Refused as reason:
            shown = f"{place}: " if isinstance(place, Path) else ""
            raise ValueError(f"{shown}can't be used: {reason}") from None

    def shares(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """uint8 pixels `(channels, side, side)` as a batch of shares of white, where the network computes."""
        shares = torch.from_numpy(np.stack(pixels)).to(self.device).float() / 255
        return shares.contiguous(memory_format=torch.channels_last)
