"""A picture in the depth in which its file holds it, and how it is brought to 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from sslflow.ingest.images.files import Refused


def _ends(value: Any) -> Any:
    if value in ("full", "stretch"):
        return value
    if isinstance(value, tuple) and len(value) == 2 and all(type(end) in (int, float) for end in value):
        low, high = float(value[0]), float(value[1])
        if -math.inf < low < high < math.inf:
            return low, high
    raise PydanticCustomError(
        "ends", "should be full, stretch, or [low, high], two numbers of which the first is smaller"
    )


SixteenBit = Annotated[Literal["full", "stretch"] | tuple[float, float], PlainValidator(_ends)]
"""What becomes black and white where a sample has more than 8 bits: the ends of the format's range, those of each
image's own range, or the two values that are given."""

_STRETCH = (0.5, 99.5)
_STRETCH_SAMPLE = 4_000_000
_USED_SAMPLE = 100_000
_BLOCK = 2**20


@dataclass(frozen=True)
class Used:
    """The part of its range that an image with more than 8 bits a sample uses."""

    low: float
    """All but the lowest 0.5 % of the values are at least this."""
    high: float
    """All but the highest 0.5 % of the values are at most this."""
    white: int | None
    """The value of full brightness; None where the format gives none."""


@dataclass(frozen=True)
class Raster:
    """One picture as its file holds it."""

    values: np.ndarray
    """`(height, width, bands)`: 1 band (grey), 3 (RGB) or 4 (CMYK) of integers or floating point."""
    white: int | None
    """The value of full brightness; None where the format gives none: then the image's own range is spread."""
    alpha: np.ndarray | None = None
    """uint8 `(height, width)`, 255 where the picture is opaque."""
    inverted: bool = False
    """Whether 0 is white."""
    orientation: int = 1
    """As in EXIF, 1 to 8."""
    pages: int = 0
    """Pages, frames or planes that are left out."""
    bands: int = 0
    """Bands that are left out."""


def eight_bit(raster: Raster, sixteen_bit: SixteenBit) -> tuple[Image.Image, Used | None]:
    """As an image of mode L, RGB, CMYK or RGBA, and which range its values use where they have more than 8 bits. Raises
    `Refused` where no value is finite."""
    values, white = raster.values, raster.white
    used = None
    if white is None or white > 255:
        inks = values.shape[2] == 4
        own = white is None or (sixteen_bit == "stretch" and not inks)
        low, high = _percentiles(raster, _STRETCH_SAMPLE if own else _USED_SAMPLE)
        used = None if inks else Used(low, high, white)
        if isinstance(sixteen_bit, tuple) and not inks:
            low, high = sixteen_bit
        elif white is not None and not own:
            low, high = 0.0, float(white)
        values = _spread(values, low, high)
    elif white < 255:
        values = ((values.astype(np.uint32) * 510 + white) // (2 * white)).astype(np.uint8)
    if raster.inverted:
        values = 255 - values
    height, width, bands = values.shape
    image = Image.frombytes({1: "L", 3: "RGB", 4: "CMYK"}[bands], (width, height), values.tobytes())
    if raster.alpha is not None:
        image = image.convert("RGB")
        image.putalpha(Image.fromarray(raster.alpha))
    return image, used


def _percentiles(raster: Raster, count: int) -> tuple[float, float]:
    """Of about `count` of the finite values where the picture isn't transparent."""
    step = max(1, raster.values.size // count)
    bands = raster.values.shape[2]
    sample = raster.values.reshape(-1, bands)[:: max(1, step // bands)]
    if raster.alpha is not None and raster.alpha.any():
        sample = sample[raster.alpha.reshape(-1)[:: max(1, step // bands)] > 0]
    sample = sample[np.isfinite(sample)].astype(np.float64)
    if not len(sample):
        raise Refused("no finite value in it")
    low, high = np.percentile(sample, _STRETCH)
    return float(low), float(high)


def _spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from `low` to `high` spread over 0 to 255, uint8; a NaN becomes 0."""
    spread = np.empty(values.size, np.uint8)
    flat = values.reshape(-1)
    factor = 255 / (high - low) if high > low else 0.0
    for start in range(0, flat.size, _BLOCK):
        scaled = (flat[start : start + _BLOCK].astype(np.float64) - low) * factor
        scaled = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
        spread[start : start + _BLOCK] = np.floor(scaled + 0.5)
    return spread.reshape(values.shape)
