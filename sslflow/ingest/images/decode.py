"""One image file of any kind to uint8 pixels of one size; docs/data.md has the table. Imports no torch."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from sslflow.ingest.records import Picture

Fit = Literal["crop", "pad", "stretch"]
Background = Literal["white", "black", "grey"]
SixteenBit = Literal["full", "stretch"]

SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"])
"""Endings that make a file an image to us; what it is, is then told by its content."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF")
"""The decoders that may run: not all of Pillow's, since some of them start other programs."""

MAX_PIXELS = 100_000_000

_SHADES = {"white": 255, "grey": 128, "black": 0}
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = {_TURNS[number] for number in (5, 6, 7, 8)}
_ORIENTATION = 0x0112
_STRETCH = (0.5, 99.5)
_STRETCH_SAMPLE = 4_000_000


class Refused(ValueError):
    """Why an image can't be used, in words for `quarantine.csv`."""


@dataclass(frozen=True)
class Decoded:
    """Prepared pixels, and what the file held before: its size as it is looked at (after the EXIF rotation)."""

    pixels: np.ndarray
    """uint8 `(channels, size, size)`."""
    width: int
    height: int


def decode(
    picture: Picture,
    size: int,
    channels: int,
    *,
    fit: Fit = "crop",
    background: Background = "white",
    sixteen_bit: SixteenBit = "full",
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """The image as uint8 `(channels, size, size)`, channels 1 (grey) or 3 (RGB). Raises `Refused` with the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow warns of odd metadata and of size; size is checked here, before decoding
        try:
            with _opened(picture) as image:
                return _prepared(image, size, channels, fit, background, sixteen_bit, max_pixels)
        except Refused:
            raise
        except MemoryError:
            raise Refused("needs more memory than there is") from None
        except Image.DecompressionBombError:
            raise Refused(f"too large: more than max_pixels = {max_pixels}") from None
        except Exception as error:  # broken files make Pillow's decoders raise nearly anything
            raise Refused(f"damaged: {_words(error)}") from None


@contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    if isinstance(picture, np.ndarray):
        yield Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
        return
    with io.BytesIO(picture) if isinstance(picture, bytes) else regular_file(picture) as handle:
        start = handle.read(16)
        if not start:
            raise Refused("empty file")
        handle.seek(0)
        try:
            image = Image.open(handle, formats=FORMATS)
        except UnidentifiedImageError:
            raise Refused(_unidentified(start)) from None
        with image:
            yield image


def regular_file(path: Path) -> io.BufferedReader:
    """The file, opened for reading. Raises `Refused` for what can't be read; never waits on a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Refused("not there: a link that leads nowhere, or removed meanwhile") from None
    except PermissionError:
        raise Refused("not readable: no permission") from None
    except OSError as error:
        raise Refused(f"not readable: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("not a regular file")
    return os.fdopen(descriptor, "rb")


def _unidentified(start: bytes) -> str:
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return f"damaged: begins like {kind}, but its header can't be read"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "damaged: begins like WEBP, but can't be read"
    if start[4:8] == b"ftyp":
        return "not supported: HEIC, AVIF or a video; convert it first"
    return f"not an image of a supported kind: begins with {start!r}"


def _prepared(
    image: Image.Image,
    size: int,
    channels: int,
    fit: Fit,
    background: Background,
    sixteen_bit: SixteenBit,
    max_pixels: int,
) -> Decoded:
    width, height = image.size
    if width * height > max_pixels:
        raise Refused(f"too large: {width} x {height} pixels, more than max_pixels = {max_pixels}")
    if width < 1 or height < 1:
        raise Refused(f"no pixels: {width} x {height}")
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (2 * size, 2 * size))  # the decoder may halve as it reads, while twice what is needed remains
    image.load()
    turn = _TURNS.get(_orientation(image))
    shown = (height, width) if turn in _SWAPPING else (width, height)
    flat = _flat(image, channels, _SHADES[background], sixteen_bit)
    fitted = _fitted(flat, size, fit, turn, _SHADES[background])
    pixels = np.asarray(fitted, np.uint8).reshape(size, size, channels).transpose(2, 0, 1)
    return Decoded(np.ascontiguousarray(pixels), *shown)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # metadata may be broken in as many ways as there are cameras; the pixels are fine
        return 1


def _flat(image: Image.Image, channels: int, shade: int, sixteen_bit: SixteenBit) -> Image.Image:
    """As 8-bit grey or RGB, without alpha."""
    if image.mode.startswith("I;16") and sixteen_bit == "full":
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) * 2 + 257) // 514).astype(np.uint8))
    elif image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_stretched(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, (shade, shade, shade))
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    if channels == 1:
        return (
            image if image.mode == "L" else (image if image.mode in ("1", "RGB") else image.convert("RGB")).convert("L")
        )
    return image.convert("RGB")


def _stretched(values: np.ndarray) -> np.ndarray:
    """Brightness from the image's own 0.5 to 99.5 percentile spread over 0 to 255, uint8; a NaN becomes 0."""
    values = values.astype(np.float32)
    sample = values.ravel()[:: max(1, values.size // _STRETCH_SAMPLE)]
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        raise Refused("no finite value in it")
    low, high = np.percentile(sample.astype(np.float64), _STRETCH)
    scaled = (values - low) * (255 / (high - low) if high > low else 0)
    return np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).round().astype(np.uint8)


def _fitted(image: Image.Image, size: int, fit: Fit, turn: Image.Transpose | None, shade: int) -> Image.Image:
    """Resized to `size` squared, then turned upright: the same as the other way round, and cheaper."""
    width, height = image.size
    box, target = (0.0, 0.0, float(width), float(height)), (size, size)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    elif fit == "pad":
        target = (max(1, round(size * width / max(width, height))), max(1, round(size * height / max(width, height))))
    if image.size != target or box != (0, 0, width, height):
        image = image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if turn is not None:
        image = image.transpose(turn)
    if image.size == (size, size):
        return image
    ground = Image.new(image.mode, (size, size), shade if image.mode == "L" else (shade,) * 3)
    ground.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return ground


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
