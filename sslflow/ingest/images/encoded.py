"""Prepared images kept as JPEG, one after the other in shards: above some 20 GB of pixels. Imports no torch."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from sslflow.ingest.shards import ShardWriter

Store = Literal["raw", "jpeg"]

SHARD_BYTES = 256 * 2**20
COLUMNS = (("start", pa.int64()), ("length", pa.int32()), ("crc32", pa.int64()))
"""Of the manifest: where an image's bytes are in its shard, and what they add up to."""
_MORE = 8 / 7
"""What is kept of an image's side, to what is trained on: 256 for 224, the usual sizes."""
_BLOCK = 8
"""Sides of JPEG's own blocks."""


def kept_side(store: Store, stored_side: int, image_size: int) -> int:
    """Pixels of the squares that are kept; `stored_side` 0 chooses. Raises `ValueError` for a side that doesn't go with
    the other two settings."""
    if store == "raw":
        if stored_side not in (0, image_size):
            raise ValueError(
                f"data.stored_side is for data.store jpeg, found {stored_side} with raw, which keeps images of "
                "image_size: set store to jpeg, or leave stored_side out"
            )
        return image_size
    side = stored_side or -(-round(image_size * _MORE) // _BLOCK) * _BLOCK
    if side < image_size:
        raise ValueError(
            f"data.stored_side is {side}, and images of data.image_size {image_size} are to be made of them: set it to "
            f"{image_size} or more, or to 0"
        )
    return side


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """Pixels, uint8 `(channels, height, width)`, as a JPEG file, colours at half the resolution of
    brightness, as is usual: as fine ones take half as much room again, and a third more time to decode."""
    mode, table = ("L", pixels[0]) if len(pixels) == 1 else ("RGB", pixels.transpose(1, 2, 0))
    content = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(table), mode)
    image.save(content, "JPEG", quality=quality, subsampling=2)
    return content.getvalue()


class EncodedWriter(ShardWriter):
    """Writes `images-00000.jpegs`, … of about `SHARD_BYTES` each, and the manifest; nothing of them is held in
    memory."""

    def __init__(self, folder: Path, columns: Sequence[tuple[str, pa.DataType]]) -> None:
        """`columns`: of the manifest, besides those of every one and those that say where images are."""
        super().__init__(folder, {}, (*columns, *COLUMNS), measured="images")
        self._handle: BinaryIO | None = None
        self._number, self._bytes = -1, 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        finally:
            super().__exit__(kind, error, trace)

    def _place(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        content: bytes = fields["images"]
        if self._handle is None or self._bytes + len(content) > SHARD_BYTES:
            self._close()
            self._number, self._filled, self._bytes = self._number + 1, 0, 0
            self._handle = (self._folder / f"images-{self._number:05d}.jpegs").open("wb")
        self._handle.write(content)
        place = {"shard": self._number, "index": self._filled, "start": self._bytes, "length": len(content)}
        self._filled, self._bytes = self._filled + 1, self._bytes + len(content)
        return {**place, "crc32": zlib.crc32(content)}

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._handle.close()
            self._handle = None
