"""TIFF files of any layout, written without a library for TIFF, so that what they hold is known."""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from PIL import Image

Order = Literal["<", ">"]
Tag = tuple[int, int, Sequence[float] | bytes]
NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
_FORMATS = {1: "B", 3: "H", 4: "I", 5: "II", 11: "f", 12: "d", 16: "Q"}


@dataclass(frozen=True)
class Page:
    """An image `(height, width, bands)` and how it is stored."""

    values: np.ndarray
    photometric: int | None = 1
    bits: int = 8
    format: int | None = None
    """1 unsigned, 2 signed, 3 floating point, as the type of `values`; None: no tag."""
    planar: int = 1
    compression: int = NONE
    predictor: int = 1
    extra: Sequence[int] = ()
    rows: int = 0
    """Of a strip; 0: all."""
    tile: int = 0
    """Width and height of tiles; 0: strips."""
    fill: int = 1
    """2: the bits of each byte are turned round."""
    more: Sequence[Tag] = field(default=())

    @property
    def size(self) -> tuple[int, int, int]:
        height, width, bands = self.values.shape
        return height, width, bands


def tiff(*pages: Page, order: Order = "<", big: bool = False, sub: Sequence[Page] = ()) -> bytes:
    """The bytes of a file of these pages; `sub` are sub-images of the first."""
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    children = []
    for page in sub:
        children.append(_write(out, page, order, big, None)[0])
    link = 8 if big else 4
    for number, page in enumerate(pages):
        start, following = _write(out, page, order, big, children if not number and children else None)
        struct.pack_into(order + ("Q" if big else "I"), out, link, start)
        link = following
    return bytes(out)


def _write(out: bytearray, page: Page, order: Order, big: bool, children: list[int] | None) -> tuple[int, int]:
    """Append a page; where its directory begins, and where the place of the next one is to be written."""
    height, width, bands = page.size
    places, counts = [], []
    for part in _parts(page):
        content = _compressed(page, _packed(part, page, order), part)
        if page.fill == 2:
            content = np.packbits(np.unpackbits(np.frombuffer(content, np.uint8)).reshape(-1, 8)[:, ::-1]).tobytes()
        places.append(len(out))
        counts.append(len(content))
        out += content + bytes(len(content) % 2)
    kind = {"b": 1, "u": 1, "i": 2, "f": 3, "c": 6}[page.values.dtype.kind]
    tags: list[Tag] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [page.bits] * bands),
        (259, 3, [page.compression]),
        (277, 3, [bands]),
        (284, 3, [page.planar]),
        (339, 3, [page.format or kind] * bands),
    ]
    if page.photometric is not None:
        tags.append((262, 3, [page.photometric]))
    if page.tile:
        tags += [(322, 4, [page.tile]), (323, 4, [page.tile]), (324, 4, places), (325, 4, counts)]
    else:
        tags += [(273, 4, places), (278, 4, [page.rows or height]), (279, 4, counts)]
    if page.predictor > 1:
        tags.append((317, 3, [page.predictor]))
    if page.extra:
        tags.append((338, 3, list(page.extra)))
    if page.fill > 1:
        tags.append((266, 3, [page.fill]))
    if children:
        tags.append((330, 4, children))
    replaced = {tag[0]: tag for tag in [*tags, *page.more]}
    return _directory(out, sorted(replaced.values(), key=lambda tag: tag[0]), order, big)


def _directory(out: bytearray, tags: list[Tag], order: Order, big: bool) -> tuple[int, int]:
    room, offset = (8, "Q") if big else (4, "I")
    start = len(out)
    entries = bytearray(struct.pack(order + ("Q" if big else "H"), len(tags)))
    beyond = start + len(entries) + (20 if big else 12) * len(tags) + room
    later = bytearray()
    for number, kind, values in tags:
        if isinstance(values, bytes):
            content, count = values, len(values)
        else:
            form, count = _FORMATS[kind], len(values) // len(_FORMATS[kind])
            content = struct.pack(order + form * count, *values)
        entries += struct.pack(order + ("HHQ" if big else "HHI"), number, kind, count)
        if len(content) <= room:
            entries += content.ljust(room, b"\0")
        else:
            entries += struct.pack(order + offset, beyond + len(later))
            later += content + bytes(len(content) % 2)
    out += entries + bytes(room) + later
    return start, start + len(entries)


def _parts(page: Page) -> list[np.ndarray]:
    """Strips or tiles, in the order in which they stand."""
    height, width, bands = page.size
    planes = [page.values] if page.planar == 1 else [page.values[..., band : band + 1] for band in range(bands)]
    parts = []
    for plane in planes:
        if page.tile:
            side = page.tile
            padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
            for top in range(0, height, side):
                parts += [padded[top : top + side, left : left + side] for left in range(0, width, side)]
        else:
            rows = page.rows or height
            parts += [plane[top : top + rows] for top in range(0, height, rows)]
    return parts


def _packed(part: np.ndarray, page: Page, order: Order) -> bytes:
    """The samples of a strip or tile as bytes, before they are compressed."""
    if page.bits == 24 and order == "<":
        return np.ascontiguousarray(part.astype("<u4")).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    if page.bits not in (8, 16, 32, 64, 128):  # each row begins with a byte, the highest bit first
        flat = part.reshape(part.shape[0], -1).astype(np.int64)
        digits = (flat[..., None] >> np.arange(page.bits - 1, -1, -1)) & 1
        content = np.packbits(digits.astype(np.uint8).reshape(part.shape[0], -1), axis=1).tobytes()
    elif page.predictor == 2:
        whole = part.view(f"u{part.dtype.itemsize}")
        steps = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
        content = steps.astype(steps.dtype.newbyteorder(order)).tobytes()
    elif page.predictor == 3:
        content = _float_predicted(part)
    else:
        content = part.astype(part.dtype.newbyteorder(order)).tobytes()
    return content


def _float_predicted(part: np.ndarray) -> bytes:
    """As Adobe's technical note 3 has it: bytes of a row by significance, highest first, then differences."""
    rows, _, bands = part.shape
    size = part.dtype.itemsize
    content = part.astype(part.dtype.newbyteorder(">")).tobytes()
    planes = np.frombuffer(content, np.uint8).reshape(rows, -1, size).transpose(0, 2, 1).reshape(rows, -1)
    before = np.zeros_like(planes)
    before[:, bands:] = planes[:, :-bands]
    return (planes - before).astype(np.uint8).tobytes()


def _compressed(page: Page, content: bytes, part: np.ndarray) -> bytes:
    match page.compression:
        case 1:
            return content
        case 5:
            return _lzw(content)
        case 7:
            target = io.BytesIO()
            image = Image.fromarray(part[..., 0] if part.shape[2] == 1 else part)
            image.save(target, "JPEG", quality=100, subsampling=0, keep_rgb=page.photometric == 2)
            return target.getvalue()
        case 8 | 32946:
            return zlib.compress(content)
        case 32773:
            chunks = (content[start : start + 128] for start in range(0, len(content), 128))
            return b"".join(bytes([len(chunk) - 1]) + chunk for chunk in chunks)
        case 34925:
            return lzma.compress(content)
        case 50000:
            return pa.compress(content, codec="zstd", asbytes=True)
        case _:
            return content


def _lzw(content: bytes) -> bytes:
    """Codes of 9 bits, each for one byte, the table cleared before it grows."""
    codes = []
    for start in range(0, len(content), 250):
        codes += [256, *content[start : start + 250]]
    digits = (np.array([*codes, 257])[:, None] >> np.arange(8, -1, -1)) & 1
    return np.packbits(digits.astype(np.uint8).reshape(-1)).tobytes()
