"""Masks: files in which each pixel is the number of a class. Imports no torch."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sslflow.data.annotated import as_png
from sslflow.ingest.images.files import Refused, regular_file
from sslflow.ingest.records import NO_CLASS, Masks, Picture

_MOST = 2**16
_SHOWN = 5
_SPREAD = {2: 85, 4: 17}
"""By what Pillow multiplies greys of so many bits."""


def read_mask(picture: Picture, max_pixels: int) -> np.ndarray:
    """The numbers in a mask, uint8 or uint16 `(height, width)`. Raises `Refused` for what is none, and for what is
    damaged nearly anything."""
    if isinstance(picture, np.ndarray):
        return picture
    with io.BytesIO(picture) if isinstance(picture, bytes) else regular_file(picture) as handle:
        start = handle.read(26)
        if not start.startswith(b"\x89PNG"):
            raise Refused("mask that is no PNG")
        handle.seek(0)
        with Image.open(handle, formats=("PNG",)) as image:
            if image.width * image.height > max_pixels:
                raise Refused(f"mask too large: {image.width} x {image.height} pixels, more than max_pixels")
            if image.mode not in ("P", "L", "1", "I;16", "I"):
                raise Refused(
                    "mask of colours: expected the number of a class in each pixel, a PNG with a palette or grey, "
                    f"found {image.mode}"
                )
            numbers = np.asarray(image)
        grey, bits = start[25] == 0, start[24]
        if grey and bits in _SPREAD:
            numbers = numbers // _SPREAD[bits]
        return numbers.astype(np.uint8 if bits <= 8 else np.uint16)


def as_classes(numbers: np.ndarray, masks: Masks) -> np.ndarray:
    """Class of each pixel, uint8, `NO_CLASS` where it is ignored. Where no classes are told, the numbers stay. Raises
    `Refused` for numbers that no class has."""
    found = np.unique(numbers).tolist()
    table = np.full(_MOST, NO_CLASS, np.uint8)
    known = masks.numbers or tuple(value for value in found if value < NO_CLASS and value != masks.ignore)
    table[list(known)] = np.arange(len(known), dtype=np.uint8) if masks.numbers else np.asarray(known, np.uint8)
    unknown = [value for value in found if value != masks.ignore and value not in known]
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise Refused(
            f"mask with numbers that are no class: {', '.join(map(str, unknown[:_SHOWN]))}{more}; data.masks names them"
        )
    return table[numbers]


def renumbered(content: bytes, order: Sequence[int]) -> bytes:
    """The file of a mask in which class `order[i]` has become `i`."""
    table = np.full(NO_CLASS + 1, NO_CLASS, np.uint8)
    table[list(order)] = np.arange(len(order), dtype=np.uint8)
    with Image.open(io.BytesIO(content)) as image:
        return as_png(table[np.asarray(image)])
