"""How fast one thread of this machine is, measured for about a second each: at decoding, at a step of training."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from sslflow.commands.estimate.clock import taking
from sslflow.data.formats import ImageFormat
from sslflow.networks.saved import new_encoder

SECONDS = 1.0
BATCH, SIDE = 16, 256
"""Images in a step; pixels a side of the photograph that is decoded."""


def decoding() -> tuple[float, float]:
    """JPEGs a second, as if no other program ran; and how many times as long it took with those that do."""
    file = io.BytesIO()
    drawn = np.random.default_rng(0)
    smooth = Image.fromarray(drawn.integers(64, 192, (24, 24, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    grain = np.asarray(smooth) + drawn.normal(0, 12, (SIDE, SIDE, 3))  # of a photograph: flat colours are no work
    Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return _measured(lambda: Image.open(io.BytesIO(file.getvalue())).convert("RGB"))


def training(side: int, channels: int, settings: Mapping[str, Any]) -> float:
    """Images a second through an encoder with these settings and back, the same way."""
    encoder = new_encoder(ImageFormat(channels, side, (0.5,) * channels, (0.5,) * channels), settings)
    images = torch.rand(BATCH, channels, side, side)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return BATCH * _measured(lambda: encoder(images).square().mean().backward())[0]
    finally:
        torch.set_num_threads(threads)


def _measured(work: Callable[[], object]) -> tuple[float, float]:
    work()
    done = 0
    with taking() as taken:
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            work()
            done += 1
    return done / taken.seconds, taken.wall / taken.seconds
