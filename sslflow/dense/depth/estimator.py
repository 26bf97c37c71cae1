"""An encoder and what makes the depth of each pixel of its maps; in a file of its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sslflow.data.depth import DepthFacts
from sslflow.data.formats import ImageFormat
from sslflow.dense.decoders import MapDecoder, enlarged
from sslflow.dense.kept import load_as, save_as
from sslflow.networks.encoder import Encoder
from sslflow.networks.stages import Stages

KEY = "sslflow.estimator"
"""In a file's metadata."""


class DepthEstimator(nn.Module):
    """Normalised images `(n, channels, s, s)`, of images as `format` has them, to log depth `(n, 1, s, s)`, by a
    decoder of so much `width`."""

    def __init__(self, encoder: Encoder, known: DepthFacts, format: ImageFormat, *, width: int) -> None:
        """`known` of the depth maps that are learnt from. Raises `ValueError` for an encoder that makes no map."""
        super().__init__()
        self.stages, self.known, self.format, self.width = Stages(encoder), known, format, width
        self.classes: list[str] = []
        """None: what it tells is a number."""
        self.facts: dict[str, Any] = {}
        """What else is known of it, plain values: how images' files were read, and how it was trained."""
        self.decoder = MapDecoder(self.stages.dims, self.stages.across, encoder.image_size, 1, width=width)

    @property
    def encoder(self) -> Encoder:
        """What makes the maps."""
        return self.stages.encoder

    def forward(self, images: Tensor) -> Tensor:
        found = self.decoder(self.stages(images)).float()
        return enlarged(self.known.mean_log + self.known.std_log * found, images.shape[-2:])


def save_estimator(model: DepthEstimator | None, file: Path) -> None:
    """Write it to a file, as `save_as` does."""
    if model is not None:
        model.facts["depth"] = asdict(model.known)
    save_as(KEY, model, file)


def load_estimator(file: Path) -> DepthEstimator:
    """The one that `save_estimator` wrote, on the CPU, in evaluation mode. Raises `ValueError` for any other file."""

    def build(encoder: Encoder, _: list[str], format: ImageFormat, *, width: int) -> DepthEstimator:
        return DepthEstimator(encoder, DepthFacts(0.0, 1.0), format, width=width)

    model = load_as(KEY, build, "depth maps", file)
    model.known = DepthFacts(**model.facts["depth"])
    return model
