"""Hashes by which equal pictures are found. Imports no torch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from PIL import Image
from xxhash import xxh3_128


def hashed(facts: object, *contents: bytes | np.ndarray) -> bytes:
    """128 bits (XXH3) by which contents that lie contiguous in memory can be told apart, though not against somebody
    who makes two that collide."""
    digest = xxh3_128(repr(facts).encode())
    for content in contents:
        digest.update(content.data if isinstance(content, np.ndarray) else content)
    return digest.digest()


def stored(image: Image.Image) -> bytes | np.ndarray:
    """The pixels of an image of mode RGB or RGBA, four bytes each, of which the last one is 255 in RGB: as Pillow holds
    them, not copied, where that is in one piece."""
    try:
        values = pa.array(image).flatten().to_numpy()
    except ValueError:  # above 16 MiB
        values = None
    # Decoders fill the byte that RGB has no use for with 255; one that doesn't must not hide a repeat.
    if values is None or (image.mode == "RGB" and np.bitwise_and.reduce(values.view("<u4")) >> 24 != 255):
        return image.convert("RGBA").tobytes()
    return values
