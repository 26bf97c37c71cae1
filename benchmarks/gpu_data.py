"""Made-up examples of every kind of data, in memory, for the GPU's benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_report import SEED
from sslflow.data.fields import Fields
from sslflow.data.formats import ClipFormat, ImageFormat, TextFormat, VolumeFormat
from sslflow.data.tokens import BETWEEN, FIRST, SPECIAL
from sslflow.runtime.rng import derive

GREY = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CAPTION = {"length": 12, "vocabulary": 500}
CAPTIONS = 2
"""Of each image, at most."""
DEPTH = {"mean_log": 0.7, "std_log": 0.4}


@dataclass(frozen=True)
class Memory:
    """Examples in memory, as `fit` reads them, and the methods' ingredients."""

    format: Any
    fields: Fields
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.fields)

    @property
    def labels(self) -> np.ndarray:
        return np.arange(len(self)) % 4

    @property
    def pretraining_rows(self) -> np.ndarray:
        return np.arange(len(self))

    def read(self, rows: np.ndarray) -> Fields:
        return self.fields[torch.from_numpy(rows)]


def numbers(name: str) -> torch.Generator:
    """A generator of one's own."""
    return torch.Generator().manual_seed(derive(SEED, name))


def pictures(count: int, channels: int, side: int) -> Tensor:
    """Smooth images with a little noise, the same at each call: uint8 `(count, channels, side, side)`."""
    drawn = numbers("pictures")
    found = torch.empty(count, channels, side, side, dtype=torch.uint8)
    for part in found.split(64):
        coarse = torch.rand(len(part), channels, 5, 5, generator=drawn)
        smooth = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
        part.copy_((smooth + 0.05 * torch.randn(smooth.shape, generator=drawn)).clamp(0, 1) * 255)
    return found


def images_in_memory(count: int, side: int, times: int = 1) -> Memory:
    """So many colour images, each so many times."""
    return Memory(ImageFormat(3, side, *GREY), Fields(images=pictures(count, 3, side).repeat(times, 1, 1, 1)))


def captioned_in_memory(count: int, side: int) -> Memory:
    """Images with one or two captions."""
    vocabulary, length = CAPTION["vocabulary"], CAPTION["length"]
    captions = sentences(count * CAPTIONS, length, vocabulary).view(count, CAPTIONS, length)
    captions[::2, 1:] = 0
    images = Fields(images=pictures(count, 3, side), captions=captions)
    return Memory(ImageFormat(3, side, *GREY), images, {"captions": CAPTION})


def depths_in_memory(count: int, side: int) -> Memory:
    """Images with depth maps in which a corner isn't known."""
    depth = 0.5 + 5 * pictures(count, 3, side)[:, :1].float() / 255
    depth[:, :, : side // 4, : side // 4] = 0
    return Memory(ImageFormat(3, side, *GREY), Fields(images=pictures(count, 3, side), depth=depth), {"depth": DEPTH})


def clips_in_memory(count: int, form: ClipFormat) -> Memory:
    """Clips in which a picture moves, with a tone that swells and fades, two of each source."""
    wide = pictures(count, 3, 2 * form.side)
    steps = (torch.linspace(0, 1, form.frames) * form.side).long().tolist()
    frames = torch.stack([wide[:, :, step : step + form.side, step : step + form.side] for step in steps], dim=1)
    times = torch.arange(form.samples) / form.rate
    tones = 200.0 * 1.15 ** torch.arange(count)[:, None]
    tone = (2 * math.pi * tones * times).sin() * (2 * math.pi * (0.5 + 0.1 * tones / 200) * times).sin() ** 2
    noise = torch.randn(tone.shape, generator=numbers("noise"))
    sound = ((0.5 * tone + 0.01 * noise) * 32767).clamp(-32768, 32767).to(torch.int16)
    return Memory(form, Fields(frames=frames, sound=sound, groups=torch.arange(count) // 2))


def sentences(count: int, length: int, vocabulary: int) -> Tensor:
    """Sentences of words of which few are frequent, of half the length to all of it, int32 `(count, length)`."""
    drawn, first = numbers("words"), len(SPECIAL)
    shares = 1 / torch.arange(1, vocabulary - first + 1)
    words = first + torch.multinomial(shares.expand(count, -1), length, replacement=True, generator=drawn)
    ends = torch.randint(length // 2, length, (count, 1), generator=drawn)
    place = torch.arange(length)
    words = torch.where(place < ends, words, torch.where(place == ends, BETWEEN, 0))
    words[:, 0] = FIRST
    return words.int()


def text_in_memory(count: int, length: int, vocabulary: int) -> Memory:
    """Passages, four of each document, of which all but the last are followed by the next."""
    tokens = sentences(count, length, vocabulary)
    following = tokens.roll(-1, dims=0)
    following[3::4] = 0
    counts = tuple(torch.bincount(tokens.flatten(), minlength=vocabulary).tolist())
    groups = torch.arange(count) // 4
    return Memory(TextFormat(length, vocabulary, counts), Fields(tokens=tokens, following=following, groups=groups))


def volumes_in_memory(count: int, side: int) -> Memory:
    """Smooth blocks with a little noise."""
    drawn = numbers("volumes")
    coarse = torch.rand(count, 1, 4, 4, 4, generator=drawn)
    smooth = F.interpolate(coarse, size=(side,) * 3, mode="trilinear", align_corners=False)
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=drawn)
    return Memory(VolumeFormat(1, side, (0.5,), (0.25,)), Fields(volumes=(noisy.clamp(0, 1) * 255).byte()))
