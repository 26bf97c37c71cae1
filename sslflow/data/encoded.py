"""Images that are kept as JPEG: read by their places in shards, checked, and decoded in threads or on a GPU."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sslflow.data.formats import ImageFormat
from sslflow.runtime.files import reading

OPEN_SHARDS = 256
"""Shards that are mapped at a time: each takes one of the files that a process may have open, often 1,024."""
COLUMNS = ("shard", "start", "length", "crc32")
"""Of the manifest: where an image's bytes are, and what they add up to."""


@dataclass(frozen=True)
class Stored:
    """How images lie in shards, where not as pixels."""

    side: int
    """Pixels: squares, which may be larger than those that an encoder sees, for random crops to choose from."""
    quality: int
    """As libjpeg counts it, 1 to 100."""


class EncodedImages:
    """The images of a data set in `images-00000.jpegs`, …: JPEG files one after the other.

    `columns`: the manifest's `COLUMNS`, each a number a row. In memory are these, and what the system keeps of files.
    """

    def __init__(self, folder: Path, stored: Stored, format: ImageFormat, columns: Mapping[str, np.ndarray]) -> None:
        self.folder, self.stored, self.channels, self.size = folder, stored, format.channels, format.size
        self._columns = columns
        self._shard = lru_cache(OPEN_SHARDS)(self._opened)

    def read(self, rows: np.ndarray, size: int = 0, device: torch.device | None = None) -> Tensor:
        """The images of the rows given, uint8 `(n, channels, side, side)`: as they are kept, or brought to `size`.

        On a GPU they are decoded there, and stay; else in as many threads as the stage may use (`compute.threads`),
        whose number changes nothing. Pixels that a GPU decodes differ from a CPU's in their last bits. Raises
        `ValueError` that names the shard where bytes are not those that were written.
        """
        if device is not None and device.type == "cuda":
            images = self._decoded_there(rows, device)
            return brought(images, size) if size else images
        side = size or self.stored.side
        images = torch.empty(len(rows), self.channels, side, side, dtype=torch.uint8)
        threads = min(torch.get_num_threads(), len(rows))
        if threads <= 1:
            for place, row in enumerate(rows.tolist()):
                self._decode(row, images[place])
            return images
        with ThreadPoolExecutor(threads) as pool:  # what libjpeg does needs no lock of Python's
            list(pool.map(self._decode, rows.tolist(), images))
        return images

    def _decode(self, row: int, out: Tensor) -> None:
        """By Pillow: the very pixels that torchvision's `decode_jpeg` has, which is on its way out and a bit faster."""
        content = self._content(row)
        with reading(self._file(int(self._columns["shard"][row]))), Image.open(io.BytesIO(content.data)) as image:
            table = torch.from_numpy(np.array(image)).view(*image.size[::-1], self.channels).permute(2, 0, 1)
            out.copy_(brought(table[None], out.shape[-1])[0])

    def _decoded_there(self, rows: np.ndarray, device: torch.device) -> Tensor:
        from torchvision.io import ImageReadMode, decode_jpeg  # half a second, which others do without

        contents = [torch.from_numpy(self._content(row)) for row in rows.tolist()]
        mode = ImageReadMode.GRAY if self.channels == 1 else ImageReadMode.RGB
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision tells of what is to take its place
            return torch.stack(list(decode_jpeg(contents, mode, device=device)))

    def _content(self, row: int) -> np.ndarray:
        number, start, length, expected = (int(self._columns[name][row]) for name in COLUMNS)
        shard = self._shard(number)
        with reading(self._file(number)):
            if start + length > len(shard):
                raise ValueError(f"it ends after {len(shard):,} bytes, before the end of the image in row {row}")
            content = np.array(shard[start : start + length])
            if zlib.crc32(content.data) != expected:
                raise ValueError(f"the bytes of the image in row {row} are not those that were written")
        return content

    def _file(self, number: int) -> Path:
        return self.folder / f"images-{number:05d}.jpegs"

    def _opened(self, number: int) -> np.ndarray:
        with reading(self._file(number)):
            return np.memmap(self._file(number), np.uint8, "r")


def brought(images: Tensor, size: int) -> Tensor:
    """Squares, uint8 `(n, c, h, w)`, to another size, as `prepare` would have made them: with antialiasing."""
    if images.shape[-1] == size:
        return images
    if images.is_cuda:  # there is no such thing for bytes there
        images = images.float()
    found = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return found.round_().clamp_(0, 255).byte() if images.is_floating_point() else found
