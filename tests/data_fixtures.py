"""Images of many kinds and faults, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sslflow.ingest.images.examine import Examined, Work, examine
from sslflow.ingest.records import Record, Rejected


def in_process(
    tasks: Iterable[list[Record]],
    work: Work,
    workers: int,
    max_pixels: int,
) -> Iterator[Examined | Rejected]:
    """`examine_all` without processes for it: those are test_prepare's matter."""
    for records in tasks:
        yield from examine(records, work)


def scene(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A smooth colour picture in which each corner differs, so that a turned or mirrored one is told apart."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a file of that kind."""
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def write(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A small PNG file that claims to be enormous."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


def fill(folder: Path, count: int, *, first: int = 0, size: tuple[int, int] = (40, 30)) -> list[Path]:
    """Different JPEG files."""
    return [
        write(folder / f"{number:04d}.jpg", encoded(scene(*size, seed=number), "JPEG"))
        for number in range(first, first + count)
    ]
