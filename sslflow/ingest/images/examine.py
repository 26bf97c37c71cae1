"""What the workers of `prepare` do, and how they are run: in order, a bounded number at a time, none left behind."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sslflow.data.splits import Split
from sslflow.ingest.images.decode import Decoded
from sslflow.ingest.images.depth import Depth
from sslflow.ingest.images.encoded import encode
from sslflow.ingest.images.files import Refused, held, regular_file
from sslflow.ingest.images.hashes import hashed
from sslflow.ingest.images.known import Known
from sslflow.ingest.records import Annotation, Picture, Record, Rejected, escape
from sslflow.ingest.shards import Moments

_WINDOW = 4
"""Tasks a worker that are under way or wait to be fetched: bounds what is in memory."""


@dataclass(frozen=True)
class Examined:
    """One image, decoded, with the hashes by which duplicates are found."""

    name: str
    split: Split
    label: int
    group: str | None
    decoded: Decoded
    sha256: str
    """Of the file's bytes (of the pixels, where there is no file), hexadecimal."""
    pixels_hash: str
    """Of the picture that the file holds, 128 bits, hexadecimal: by it, repeats are found."""
    known: Known | None = None
    """Of an image that has been annotated."""
    captions: tuple[str, ...] = ()
    depth: Depth | None = None
    """Of an image with a depth map."""
    encoded: bytes = b""
    """The prepared pixels as a JPEG, where that is kept of them; they themselves are then left out."""
    moments: Moments = field(default_factory=Moments)
    """Of the prepared pixels."""
    look: bytes = b""
    """Hash of the prepared pixels, 128 bits."""


Decoder = Callable[[Picture], Decoded]
Annotator = Callable[[Annotation, Decoded], Known]
Measurer = Callable[[Picture, Decoded], Depth]


@dataclass(frozen=True)
class Work:
    """What is done with each image. All of it must be picklable: `decode`, `known` and `brought`, or a `partial` of
    them."""

    decoder: Decoder
    annotator: Annotator | None = None
    measurer: Measurer | None = None
    quality: int = 0
    """Of the JPEG that is kept of the prepared pixels; 0: they are kept themselves."""


def examine(records: list[Record], work: Work) -> list[Examined | Rejected]:
    """Each record decoded, or rejected with the reason, in the same order."""
    return [_examined(record, work) for record in records]


def examine_all(
    tasks: Iterable[list[Record]], work: Work, workers: int, max_pixels: int
) -> Generator[Examined | Rejected, None, None]:
    """Decode lists of records in `workers` processes; the results come in the order of the records.

    Pillow refuses more than `max_pixels` by itself as well. Close the generator (`contextlib.closing`) to be sure that
    no process outlives it. Raises `ValueError` when a process is killed.
    """
    job = partial(examine, work=work)
    under_way: deque[tuple[list[Record], Future[list[Examined | Rejected]]]] = deque()
    with pool(workers, max_pixels, lambda: [one for records, _ in under_way for one in records]) as submit:
        for records in tasks:
            under_way.append((records, submit(job, records)))
            if len(under_way) >= _WINDOW * workers:
                yield from under_way[0][1].result()
                under_way.popleft()
        while under_way:
            yield from under_way[0][1].result()
            under_way.popleft()


@contextlib.contextmanager
def pool(
    workers: int, max_pixels: int, under_way: Callable[[], Sequence[Record]]
) -> Generator[Callable[..., Future[Any]], None, None]:
    """Processes that call what they are given, `submit(function, *arguments)`, and end with the block. `under_way`:
    what they are at work on. Raises `ValueError` when one is killed."""
    context = multiprocessing.get_context("spawn")  # no copy of the parent's threads and memory
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(max_pixels,))
    try:
        yield partial(_undisturbed, executor)
    except BrokenProcessPool:
        records = under_way()
        first, last = (escape(records[place].name) for place in (0, -1))
        raise ValueError(
            f"a worker process was killed (out of memory?) at one of the images from {first} to {last}; "
            "lower data.workers or data.max_pixels, or move the image away (in a script of your own: start from "
            "`if __name__ == '__main__'`)"
        ) from None
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _undisturbed(executor: ProcessPoolExecutor, job: Callable[..., Any], *given: Any) -> Future[Any]:
    """Submit; a worker that is started now inherits that Ctrl-C is blocked (it reaches the whole group), from its first
    moment on: the parent hears it and ends its workers."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(job, *given)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _begin(max_pixels: int) -> None:
    Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own check, for sizes that show only while decoding
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _examined(record: Record, work: Work) -> Examined | Rejected:
    try:
        picture = held(record.picture) if isinstance(record.picture, Path) else record.picture
        digest = _sha256(picture)
        decoded = work.decoder(picture)
    except Refused as reason:
        return Rejected(record.name, str(reason))
    known = work.annotator(record.truth, decoded) if work.annotator and record.truth else None
    depth = work.measurer(record.depth, decoded) if work.measurer and record.depth is not None else None
    pixels, moments = decoded.pixels, Moments()
    moments.add(pixels)
    # What the parent would have to look at every pixel for is found out here: it has many workers to keep up with.
    look = hashed((), pixels)
    encoded = encode(pixels, work.quality) if work.quality else b""
    if encoded:
        decoded = replace(decoded, pixels=pixels[:, :0, :0])
    return Examined(
        record.name, record.split, record.label, record.group, decoded, digest, decoded.content or digest[:32], known,
        record.captions, depth, encoded, moments, look,
    )  # fmt: skip


def _sha256(picture: Picture) -> str:
    if not isinstance(picture, Path):
        return hashlib.sha256(picture.tobytes() if isinstance(picture, np.ndarray) else picture).hexdigest()
    with regular_file(picture) as handle:
        try:
            return hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise Refused(f"not readable: {error.strerror}") from None
