"""A depth map, checked and brought to where its image's prepared pixels lie. Imports no torch."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from sslflow.ingest.images.decode import Decoded
from sslflow.ingest.images.files import Refused, regular_file
from sslflow.ingest.images.geometry import NEAREST, SWAPPING, TURNS, Fit, placement
from sslflow.ingest.records import Picture

UNKNOWN = 0
"""In a depth map: a pixel of which it isn't known how far away it is."""
_HEADER = 26
"""Bytes of a PNG to where its bits and its kind of colours stand."""


@dataclass(frozen=True)
class Depth:
    """What is known of how far away the pixels of a prepared image are."""

    metres: np.ndarray | None = None
    """float32 `(1, size, size)`, 0 where it isn't known; None: nothing can be used."""
    flaw: str = ""
    """Why not: what kind of flaw, and after a colon what is special in it."""


def brought(picture: Picture, image: Decoded, *, size: int, fit: Fit, scale: float, max_pixels: int) -> Depth:
    """The depth map of an image in its prepared pixels: each has the value of the nearest pixel, since a mean of near
    and far is a place where nothing is. `scale`: metres from one value to the next."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of size; size is checked here
        try:
            steps = _placed(read_depth(picture, max_pixels), image, size, fit)
        except Refused as reason:
            return Depth(flaw=str(reason))
        except MemoryError:
            return Depth(flaw="depth map that needs more memory than there is")
    return Depth((steps[None] * scale).astype(np.float32))


def read_depth(picture: Picture, max_pixels: int) -> np.ndarray:
    """The values in a depth map, uint16 `(height, width)`. Raises `Refused` for what is none."""
    if isinstance(picture, np.ndarray):
        return picture
    try:
        with io.BytesIO(picture) if isinstance(picture, bytes) else regular_file(picture) as handle:
            return _read(handle, max_pixels)
    except (Refused, MemoryError):
        raise
    except Exception as error:  # broken files make decoders raise nearly anything
        raise Refused(f"depth map that is damaged: {' '.join(str(error).split()) or type(error).__name__}") from None


def _read(handle: BinaryIO, max_pixels: int) -> np.ndarray:
    start = handle.read(_HEADER)
    if not start.startswith(b"\x89PNG"):
        raise Refused("depth map that is no PNG" if start else "depth map that is empty")
    handle.seek(0)
    with Image.open(handle, formats=("PNG",)) as image:
        if image.width * image.height > max_pixels:
            raise Refused(f"depth map too large: {image.width} x {image.height} pixels, more than max_pixels")
        bits, colours = start[24], start[25]
        if colours:
            raise Refused(f"depth map of colours: expected a PNG of grey with 16 bits, found {image.mode}")
        if bits != 16:
            raise Refused(f"depth map of {bits} bits: expected a PNG of grey with 16 bits")
        return np.asarray(image).astype(np.uint16)


def _placed(steps: np.ndarray, image: Decoded, size: int, fit: Fit) -> np.ndarray:
    """Values `(size, size)`. Raises `Refused` for another size than the image's, and where nothing is known."""
    own, upright = (steps.shape[1], steps.shape[0]), (image.width, image.height)
    # As with masks: a square one is taken to be upright.
    sideways = own != upright and image.orientation in SWAPPING and own == upright[::-1]
    if own != upright and not sideways:
        raise Refused(
            f"depth map of another size than its image: {own[0]} x {own[1]}, the image is {upright[0]} x {upright[1]}"
        )
    if not steps.any():
        raise Refused("depth map of zeros alone, in which nothing is known")
    whole = Image.fromarray(steps.astype(np.int32))
    if sideways:
        whole = whole.transpose(TURNS[image.orientation])
    placed = placement(*upright, size, fit)
    square = Image.new("I", (size, size), UNKNOWN)
    square.paste(placed.resized(whole, NEAREST), placed.at)
    found = np.asarray(square)
    if not found.any():
        raise Refused("depth map in which nothing is known of the pixels that are kept")
    return found
