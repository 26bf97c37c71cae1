"""An encoder and what makes the class of each pixel of its maps; in a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sslflow.data.formats import ImageFormat
from sslflow.dense.decoders import LinearMaps, MapDecoder, enlarged
from sslflow.dense.kept import load_as, save_as
from sslflow.networks.encoder import Encoder
from sslflow.networks.stages import Stages

KEY = "sslflow.segmenter"
"""In a file's metadata."""


class Segmenter(nn.Module):
    """Normalised images `(n, channels, s, s)` to logits `(n, classes, s, s)`, of images as `format` has them."""

    def __init__(self, encoder: Encoder, classes: Sequence[str], format: ImageFormat, *, width: int = 0) -> None:
        """With a `width` of 0 one linear layer on the maps, else a decoder of that width. Raises `ValueError` for an
        encoder that makes no map."""
        super().__init__()
        self.stages = Stages(encoder)
        self.classes, self.format, self.width = list(classes), format, width
        self.facts: dict[str, Any] = {}
        """What else is known of it, plain values: how images' files were read, and how it was trained."""
        dims, across = self.stages.dims, self.stages.across
        self.decoder: LinearMaps | MapDecoder = (
            MapDecoder(dims, across, format.size, len(classes), width=width)
            if width
            else LinearMaps(dims, len(classes))
        )
        if not width:
            for parameter in self.decoder.parameters():
                nn.init.zeros_(parameter)

    @property
    def encoder(self) -> Encoder:
        """What makes the maps."""
        return self.stages.encoder

    def forward(self, images: Tensor) -> Tensor:
        return enlarged(self.decoder(self.stages(images)), images.shape[-2:])


def save_segmenter(model: Segmenter | None, file: Path) -> None:
    """Write it to a file, as `save_as` does."""
    save_as(KEY, model, file)


def load_segmenter(file: Path) -> Segmenter:
    """The one that `save_segmenter` wrote, on the CPU, in evaluation mode. Raises `ValueError` for any other file."""
    return load_as(KEY, Segmenter, "masks", file)
