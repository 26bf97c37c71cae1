"""Images as they come, decoded: which are kept, dropped or put aside, and what is known of them so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from sslflow.data.splits import POOL, TEST, TRAIN, Split
from sslflow.ingest.images.captioned import Captioned
from sslflow.ingest.images.examine import Examined
from sslflow.ingest.images.first_rows import FirstRows
from sslflow.ingest.images.losses import Losses
from sslflow.ingest.images.measured import Measured
from sslflow.ingest.images.repeats import Repeat
from sslflow.ingest.images.truths import Truths
from sslflow.ingest.records import Other, Passed, Record, Rejected, Source, escape
from sslflow.ingest.shards import ShardWriter

COLUMNS = (("width", pa.int32()), ("height", pa.int32()), ("sha256", pa.string()), ("pixels", pa.string()))
"""What the manifest says of each image besides: its size upright, hashes of the file and of the picture in it."""

_TASK_IMAGES = 64
_TASK_BYTES = 4 * 2**20
_TELL_EVERY = 10.0


@dataclass
class Book:
    """What is known of the images so far."""

    losses: Losses
    truths: Truths
    captioned: Captioned
    measured: Measured
    drop: bool
    rejected: list[Rejected] = field(default_factory=list)
    _rejected: set[str] = field(default_factory=set)
    other_files: int = 0
    passed: list[Passed] = field(default_factory=list)
    first: dict[Split, FirstRows] = field(default_factory=lambda: {split: FirstRows() for split in (TEST, TRAIN, POOL)})
    """Of each split, the row of the first image with that hash of the picture."""
    repeats: list[Repeat] = field(default_factory=list)

    def reject(self, item: Rejected) -> None:
        """An image that can't be used: once, where it would be both trained on and in the pool."""
        if item.name not in self._rejected:
            self._rejected.add(item.name)
            self.rejected.append(item)


def tasks(source: Source, book: Book, image_bytes: int) -> Iterator[list[Record]]:
    """The records in lists of a size that is worth sending; what isn't a record goes into the book."""
    limit = max(1, min(_TASK_IMAGES, _TASK_BYTES // image_bytes))
    waiting: list[Record] = []
    for item in source.records():
        if isinstance(item, Record):
            waiting.append(item)
        elif isinstance(item, Other):
            book.other_files += 1
        elif isinstance(item, Passed):
            book.passed.append(item)
        else:
            book.reject(item)
        if len(waiting) == limit:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def take(found: Iterator[Examined | Rejected], book: Book, writer: ShardWriter, tell: Callable[[str], None]) -> None:
    began = told = time.monotonic()
    moved: list[Examined] = []
    for seen, item in enumerate(found, start=1):
        if isinstance(item, Rejected):
            book.reject(item)
        else:
            checked = book.measured.checked(book.truths.checked(item))
            if item.split == TEST and checked.split != TEST:
                moved.append(checked)  # may equal one to test on that is yet to come
            else:
                _keep_or_drop(checked, book, writer)
        now = time.monotonic()
        if now - told >= _TELL_EVERY:
            told = now
            tell(f"prepare  {seen} images  {len(book.rejected)} quarantined  {seen / (now - began):.0f} img/s")
    for item in moved:
        _keep_or_drop(item, book, writer)


def _keep_or_drop(item: Examined, book: Book, writer: ShardWriter) -> None:
    """An image is compared with those to test on and those of its own split. One to train on may be in the pool as
    well: there its label is not used, and without it pretraining would miss it."""
    key = bytes.fromhex(item.pixels_hash)
    tested = book.first[TEST].get(key)
    row = tested if tested is not None else book.first[item.split].get(key)
    book.losses.add(item, repeated=row is not None or (item.split == POOL and key in book.first[TRAIN]))
    dropped = row is not None and book.drop
    added = None
    if not dropped:
        fields, columns = book.measured.add(item, item.decoded.pixels.shape[-1])
        images = item.encoded or item.decoded.pixels
        added = writer.add({"images": images, **fields}, {**_columns(item), **columns}, item.moments)
    if row is not None:
        leaked = tested is not None and item.split != TEST
        book.repeats.append(Repeat(item.name, item.split, item.label, item.sha256, row, leaked, added))
    book.truths.add(item, row, added)
    same_split = tested is None or item.split == TEST
    book.captioned.add(item.captions, added if added is not None else row if same_split else None)
    if added is not None:
        book.first[item.split].add(key, added)


def _columns(item: Examined) -> dict[str, object]:
    """What the manifest says of an image, but for its place."""
    return {
        "path": escape(item.name),
        "split": item.split,
        "label": item.label,
        "group": escape(item.name if item.group is None else item.group),
        "width": item.decoded.width,
        "height": item.decoded.height,
        "sha256": item.sha256,
        "pixels": item.pixels_hash,
    }
