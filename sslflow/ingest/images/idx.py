"""MNIST's file format, as it is or gzipped: `train-images-idx3-ubyte.gz` and its kin."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sslflow.data.classes import class_name, shown
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN, Split, held_out
from sslflow.ingest.images.made_by_systems import made_by_a_system
from sslflow.ingest.records import Record, Source

_PACKED = 1032
"""Bytes that one of gzip's may unpack to, at most."""
_NAME = re.compile(r"(?P<set>.*-)?(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx[134]-ubyte(\.gz)?")
_UNSIGNED_BYTES = 8


def idx(folder: Path, *, seed: int, test_fraction: float) -> Source:
    """The images in a folder's `train-…` and `t10k-…` (or `test-…`) files, with class names from `classes.txt` if
    there is one.

    Without labels they are a pool; with labels but no test files, `test_fraction` of each class is held out. Nothing
    is kept in memory but the labels. Raises `ValueError` for files that are missing, ambiguous or broken.
    """
    files = _find(folder)
    parts = [part for part in ("test", "train") if (part, "images") in files]
    if not parts:
        raise ValueError(
            f"{folder}: no images in MNIST's format here (expected train-images-idx3-ubyte, or with .gz, and t10k-…)"
        )
    labels = {part: _labels(files[part, "labels"]) for part in parts if (part, "labels") in files}
    for part in parts:
        count = _shape(files[part, "images"])[0]
        if part in labels and len(labels[part]) != count:
            raise ValueError(f"{files[part, 'images']}: {count} images, but {len(labels[part])} labels beside it")
    splits = {part: np.full(_shape(files[part, "images"])[0], part if part in labels else POOL) for part in parts}
    if "train" in labels and "test" not in parts:
        names = [_name("train", row) for row in range(len(labels["train"]))]
        splits["train"][held_out(names, labels["train"], test_fraction, seed)] = TEST
    classes = _classes(folder, max((int(found.max(initial=-1)) for found in labels.values()), default=-1) + 1)

    def records() -> Iterator[Record]:
        for wanted in (TEST, TRAIN, POOL):
            for part in parts:
                if wanted in splits[part]:
                    yield from _part(part, wanted)

    def _part(part: str, wanted: Split) -> Iterator[Record]:
        for row, pixels in enumerate(_images(files[part, "images"])):
            if splits[part][row] == wanted:
                label = int(labels[part][row]) if part in labels else NO_LABEL
                yield Record(_name(part, row), wanted, pixels, label)

    return Source(classes, records)


def _find(folder: Path) -> dict[tuple[str, str], Path]:
    found: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.iterdir()):
        match = _NAME.fullmatch(file.name)
        if not match or made_by_a_system(file.name, folder.name, is_folder=False):
            continue
        key = ("train" if match["part"] == "train" else "test", match["what"])
        if key in found:
            raise ValueError(
                f"{folder}: {found[key].name} and {file.name} are both {' '.join(key)}; keep one set a folder"
            )
        found[key] = file
    return found


def _name(part: str, row: int) -> str:
    return f"{part}/{row:07d}"


def _classes(folder: Path, count: int) -> tuple[str, ...]:
    file = folder / "classes.txt"
    if not file.exists():
        return tuple(str(number) for number in range(count))
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: expected class names in UTF-8, found byte {error.start} of {error.object[error.start]:#x}"
        ) from None
    names = tuple(class_name(line.strip()) for line in lines if line.strip())
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"{file}: expected a name of its own for each class, found more than once: {shown(twice)}")
    if len(names) < count:
        raise ValueError(f"{file}: {len(names)} class names, but labels up to {count - 1}")
    return names


@contextmanager
def _content(file: Path) -> Iterator[BinaryIO]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as handle:
            yield handle  # pyright: ignore[reportReturnType]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file}: damaged: {error}") from None


def _header(handle: BinaryIO, file: Path) -> tuple[int, ...]:
    magic = handle.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UNSIGNED_BYTES:
        raise ValueError(f"{file}: not unsigned bytes in MNIST's format: begins with {magic!r}")
    sizes = handle.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(f"{file}: ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    # Before memory is taken for what a header of a few bytes may claim.
    if math.prod(shape) > file.stat().st_size * (_PACKED if file.suffix == ".gz" else 1):
        raise ValueError(f"{file}: damaged: the file is too small to hold the sizes {shape} that its header says")
    return shape


def _shape(file: Path) -> tuple[int, ...]:
    with _content(file) as handle:
        shape = _header(handle, file)
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))) or 0 in shape[1:]:
        raise ValueError(f"{file}: expected images of height x width (x 1 or 3), found sizes {shape}")
    return shape


def _labels(file: Path) -> np.ndarray:
    with _content(file) as handle:
        shape = _header(handle, file)
        values = np.frombuffer(handle.read(shape[0]), np.uint8).astype(np.int64)
    if len(shape) != 1 or len(values) != shape[0]:
        raise ValueError(f"{file}: expected labels of sizes (n,), found {shape} and {len(values)} bytes")
    return values


def _images(file: Path) -> Iterator[np.ndarray]:
    with _content(file) as handle:
        count, *shape = _header(handle, file)
        for row in range(count):
            pixels = handle.read(math.prod(shape))
            if len(pixels) < math.prod(shape):
                raise ValueError(f"{file}: ends within image {row} of {count}")
            yield np.frombuffer(pixels, np.uint8).reshape(shape)
