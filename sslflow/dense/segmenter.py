"""An encoder and what makes the class of each pixel of its maps; in a file of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sslflow.data.formats import ImageFormat
from sslflow.networks.encoder import Encoder, rebuilt
from sslflow.networks.stages import Stages
from sslflow.runtime.files import reading, replacing

KEY = "sslflow.segmenter"
"""In a file's metadata."""


class LinearPixels(nn.Module):
    """Maps of several sizes, finest first, to logits on the finest's places: each map normalised and brought to that
    size by bilinear interpolation, all of them stacked (hypercolumns, arXiv:1411.5752), and one linear layer.

    A linear layer and an interpolation may change places, so that each map has its part of the layer, and it is logits
    that are enlarged.
    """

    def __init__(self, dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim, affine=False) for dim in dims)
        self.layers = nn.ModuleList(nn.Conv2d(dim, classes, 1, bias=not i) for i, dim in enumerate(dims))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def normalise_by(self, sums: Sequence[Tensor]) -> None:
        """Normalise maps, which are frozen, by the mean and variance over all that are learnt from: of each size, `(3,
        dim)`, how many places there are, the sum of their values, and the sum of the squares."""
        for norm, (count, total, squares) in zip(self.norms, sums, strict=True):
            mean = total / count
            norm.running_mean.copy_(mean)  # pyright: ignore[reportCallIssue]
            norm.running_var.copy_((squares / count - mean.square()).clamp_min(0))  # pyright: ignore[reportCallIssue]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits `(n, classes, rows, columns)` of maps `(n, dim, rows, columns)` each."""
        parts = [layer(norm(found)) for norm, layer, found in zip(self.norms, self.layers, maps, strict=True)]
        finest, *rest = parts
        return sum((enlarged(part, finest.shape[-2:]) for part in rest), finest)


class PixelDecoder(nn.Module):
    """Maps of several sizes, finest first, to logits: from the coarsest to the finest, each enlarged by repeating
    pixels and joined by the next finer map, as in U-Net (arXiv:1505.04597), with one 3x3 convolution at each size; then
    doubled until logits have half the image's rows at least.

    `across`: rows of each map of an image of `side` pixels. `width`: channels throughout.
    """

    def __init__(self, dims: Sequence[int], across: Sequence[int], side: int, classes: int, *, width: int) -> None:
        super().__init__()
        # Encoders' maps differ in size by orders of magnitude, and no skip is to drown the others.
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim, affine=False) for dim in dims)
        *finer, coarsest = dims
        doublings = 0
        while 2 * across[0] * 2**doublings < side:
            doublings += 1
        self.blocks = nn.ModuleList(
            [_block(coarsest, width)]
            + [_block(width + dim, width) for dim in reversed(finer)]
            + [_block(width, width) for _ in range(doublings)]
        )
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits `(n, classes, rows, columns)` of maps `(n, dim, rows, columns)` each."""
        *finer, coarsest = (norm(found) for norm, found in zip(self.norms, maps, strict=True))
        first, *others = self.blocks
        x = first(coarsest)
        for block, skip in itertools.zip_longest(others, reversed(finer)):
            if skip is None:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            else:
                x = torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1)
            x = block(x)
        return self.last(x)


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
        self.decoder: LinearPixels | PixelDecoder = (
            PixelDecoder(dims, across, format.size, len(classes), width=width)
            if width
            else LinearPixels(dims, len(classes))
        )

    @property
    def encoder(self) -> Encoder:
        """What makes the maps."""
        return self.stages.encoder

    def forward(self, images: Tensor) -> Tensor:
        return enlarged(self.decoder(self.stages(images)), images.shape[-2:])


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps `(n, c, rows, columns)` of another size, by bilinear interpolation."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear")


def save_segmenter(model: Segmenter | None, file: Path) -> None:
    """Write weights, classes, format, and the settings that rebuild the model to one safetensors file, the same bytes
    for the same content. None: that there is none, since nothing could be learnt."""
    described: dict[str, Any] = {}
    if model is not None:
        described = {
            "encoder": model.encoder.settings,
            "width": model.width,
            "classes": model.classes,
            "format": asdict(model.format),
            "facts": {**model.facts, "encoder": model.encoder.facts},
        }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in (model or nn.Module()).state_dict().items()}
    with replacing(file) as temporary:
        save_file(weights, temporary, metadata={KEY: json.dumps(described, sort_keys=True)})


def load_segmenter(file: Path) -> Segmenter:
    """The model that `save_segmenter` wrote, on the CPU, in evaluation mode. Raises `ValueError` for any other file."""
    with reading(file), safe_open(file, framework="pt") as content:
        metadata = content.metadata() or {}
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    if KEY not in metadata:
        raise ValueError(f"{file}: not a segmenter written by sslflow (its metadata lack '{KEY}')")
    with reading(file):
        described = json.loads(metadata[KEY])
    if not described:
        raise ValueError(f"{file}: holds no segmenter: there were no masks to train one on")
    with reading(file):
        facts = described["facts"]
        form: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in described["format"].items()
        }
        encoder = rebuilt(described["encoder"])
        encoder.facts = facts.pop("encoder")
        model = Segmenter(encoder, described["classes"], ImageFormat(**form), width=described["width"])
        model.facts = facts
        model.load_state_dict(weights)
    return model.eval()


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
