"""One image file of any kind to uint8 pixels of one size; docs/data.md has the table. Imports no torch."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.geometry import SWAPPING, TURNS, Fit, placement
from sslflow.ingest.images.hashes import hashed, stored
from sslflow.ingest.images.opened import Opened, open_picture
from sslflow.ingest.images.raster import SixteenBit, Used
from sslflow.ingest.records import Picture

Background = Literal["white", "black", "grey"]

MAX_PIXELS = 100_000_000

_SHADES = {"white": 255, "grey": 128, "black": 0}
_UNSUPPORTED = re.compile("unsupported|not supported|not implemented|cannot handle", re.IGNORECASE)


@dataclass(frozen=True)
class Decoded:
    """Prepared pixels, and what the file held before: its size as it is looked at (after the EXIF rotation)."""

    pixels: np.ndarray
    """uint8 `(channels, size, size)`."""
    width: int
    height: int
    content: str = ""
    """Hash of the picture that the file holds, in full size and depth, hexadecimal. `""`: not all of it was looked at,
    so that it is known to equal files of the same bytes only."""
    used: Used | None = None
    """Where a sample has more than 8 bits."""
    pages: int = 0
    """Pages, frames or planes that are left out."""
    bands: int = 0
    """Bands that are left out."""
    orientation: int = 1
    """As in EXIF, 1 to 8: how the file's pixels lay, before they were turned upright."""


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
            return _prepared(
                open_picture(picture, size, sixteen_bit, max_pixels), size, channels, fit, _SHADES[background]
            )
        except Refused:
            raise
        except MemoryError:
            raise Refused("needs more memory than there is") from None
        except Image.DecompressionBombError:
            raise Refused(f"too large: more than max_pixels = {max_pixels}") from None
        except Exception as error:  # broken files make decoders raise nearly anything
            words = " ".join(str(error).split()) or type(error).__name__
            raise Refused(f"{'not supported' if _UNSUPPORTED.search(words) else 'damaged'}: {words}") from None


def _prepared(opened: Opened, size: int, channels: int, fit: Fit, shade: int) -> Decoded:
    image, orientation = opened.image, opened.orientation
    shown = (opened.height, opened.width) if orientation in SWAPPING else (opened.width, opened.height)
    content = _content(image, TURNS.get(orientation)) if opened.content is None else opened.content
    if image.mode == "RGBA":
        ground = Image.new("RGB", image.size, (shade, shade, shade))
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    mode = "L" if channels == 1 else "RGB"
    fitted = _fitted(image if image.mode == mode else image.convert(mode), size, fit, orientation, shade)
    pixels = np.asarray(fitted, np.uint8).reshape(size, size, channels).transpose(2, 0, 1)
    facts = (opened.used, opened.pages, opened.bands, orientation)
    return Decoded(np.ascontiguousarray(pixels), *shown, content, *facts)


def _content(image: Image.Image, turn: Image.Transpose | None) -> str:
    """Of a picture of 8 bits, upright. Grey is as good as the same in colour, and what can't be seen is nothing."""
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "RGBA":
        alpha = image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            image = image.convert("RGB")
        else:
            seen = Image.new("RGBA", image.size)
            seen.paste(image, mask=alpha.point([0] + [255] * 255))
            image = seen
    elif image.mode == "L":
        image = image.convert("RGB")
    return hashed((image.mode, image.size), stored(image)).hex()


def _fitted(image: Image.Image, size: int, fit: Fit, orientation: int, shade: int) -> Image.Image:
    """Resized to `size` squared, then turned upright: the same as the other way round, and cheaper."""
    placed = placement(*image.size, size, fit)
    image = placed.resized(image, Image.Resampling.BICUBIC)
    if orientation in TURNS:
        image = image.transpose(TURNS[orientation])
    if image.size == (size, size):
        return image
    ground = Image.new(image.mode, (size, size), shade if image.mode == "L" else (shade,) * 3)
    left, top = placed.at
    ground.paste(image, (top, left) if orientation in SWAPPING else (left, top))
    return ground
