"""The parts in which a folder's images become features: which images each has, and where it waits for the others."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import torch

from sslflow.ingest.images import folders
from sslflow.ingest.records import Other, Passed, Record, Rejected, escape
from sslflow.use.images import Images

T = TypeVar("T")

KEY = b"sslflow.embed"
"""Of a table's metadata: what is known of its features, as JSON."""
TASK_IMAGES, TASK_BYTES = 64, 4 * 2**20
"""Of what a worker process is sent at a time, and gives back."""
CHANGED = "the folder's files have changed while they were read; run it again, and what is done stays done"


@dataclass(frozen=True)
class Part:
    """Images that follow one another; `key` says which they are, by what encoder they are seen and how."""

    key: str
    images: int
    rejected: tuple[Rejected, ...]


@dataclass
class Content:
    """All that is in the folder, as far as it is worth remembering."""

    parts: list[Part] = field(default_factory=list)
    other_files: int = 0
    passed: list[Passed] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many there are, broken ones among them."""
        return sum(part.images for part in self.parts)


def look(folder: Path, schema: pa.Schema, size: int) -> Content:
    """What is in the folder, in parts of `size` images; none is read."""
    found = Content()

    def usable() -> Iterator[Record | Rejected]:
        for item in folders.images(folder):
            if isinstance(item, Other):
                found.other_files += 1
            elif isinstance(item, Passed):
                found.passed.append(item)
            else:
                yield item

    for items in lists(usable(), size):
        rejected = tuple(item for item in items if isinstance(item, Rejected))
        found.parts.append(Part(_key(schema, items), len(items) - len(rejected), rejected))
    return found


def _key(schema: pa.Schema, items: Iterable[Record | Rejected]) -> str:
    """Hash of all that the part's content depends on."""
    about = json.loads(schema.metadata[KEY])
    for name in ("encoder", "segmenter", "detector"):  # where it lies changes nothing, and its hash is there
        about.pop(name, None)
    content = hashlib.sha256(json.dumps([about, str(schema.remove_metadata()), torch.__version__]).encode())
    for item in items:
        content.update(json.dumps([escape(item.name), _state(item)]).encode())
    return content.hexdigest()[:24]


def _state(item: Record | Rejected) -> Any:
    """What changes when a file is written anew."""
    if isinstance(item, Rejected):
        return item.reason
    assert isinstance(item.picture, Path)
    try:
        facts = item.picture.stat()
    except OSError as error:
        return error.strerror
    return facts.st_size, facts.st_mtime_ns


def hidden(file: Path) -> Path:
    """The folder in which the parts of a table wait."""
    return file.with_name(f".{file.name}.parts")


@contextlib.contextmanager
def parts_of(file: Path) -> Iterator[Path]:
    """The folder with the parts of a table, for one process alone; once all went well it is removed. Raises
    `ValueError` where another process has it."""
    parts = hidden(file)
    parts.mkdir(exist_ok=True)
    with (parts / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{file}: another process is writing it; wait for it, or choose another name") from None
        yield parts
        shutil.rmtree(parts)


def place_of(parts: Path, part: Part) -> Path:
    """The file of a part."""
    return parts / f"{part.key}.parquet"


def tasks(
    folder: Path, found: Content, waiting: list[Part], schema: pa.Schema, size: int, images: Images
) -> Iterator[list[Record]]:
    """The images of the parts that are not there, in lists that are worth sending. Raises `ValueError` where the folder
    is no longer what it was."""
    keys = {part.key for part in waiting}
    most = max(1, min(TASK_IMAGES, TASK_BYTES // (images.channels * images.side**2)))
    usable = (item for item in folders.images(folder) if isinstance(item, Record | Rejected))
    for part, items in zip(found.parts, lists(usable, size), strict=False):
        if part.key not in keys:
            continue
        if _key(schema, items) != part.key:
            raise ValueError(CHANGED)
        yield from lists((item for item in items if isinstance(item, Record)), most)


def lists(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last shorter."""
    items = iter(items)
    while some := list(islice(items, size)):
        yield some
