"""What the workers of `prepare` do, and how they are run: in order, a bounded number at a time, none left behind."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from PIL import Image

from sslflow.data.splits import Split
from sslflow.ingest.images.decode import Decoded
from sslflow.ingest.images.depth import Depth
from sslflow.ingest.images.files import Refused, regular_file
from sslflow.ingest.images.known import Known
from sslflow.ingest.records import Annotation, Picture, Record, Rejected, escape

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


Decoder = Callable[[Picture], Decoded]
Annotator = Callable[[Annotation, Decoded], Known]
Measurer = Callable[[Picture, Decoded], Depth]


def examine(
    records: list[Record], decoder: Decoder, annotator: Annotator | None = None, measurer: Measurer | None = None
) -> list[Examined | Rejected]:
    """Each record decoded, or rejected with the reason, in the same order."""
    return [_examined(record, decoder, annotator, measurer) for record in records]


def examine_all(
    tasks: Iterable[list[Record]],
    decoder: Decoder,
    workers: int,
    max_pixels: int,
    annotator: Annotator | None = None,
    measurer: Measurer | None = None,
) -> Generator[Examined | Rejected, None, None]:
    """Decode lists of records in `workers` processes; the results come in the order of the records.

    `decoder`, `annotator` and `measurer` must be picklable: `decode`, `known` and `brought`, or a `partial` of them;
    Pillow refuses more than `max_pixels` by itself as well. Close the generator (`contextlib.closing`) to be sure that
    no process outlives it. Raises `ValueError` when a process is killed.
    """
    job = partial(examine, decoder=decoder, annotator=annotator, measurer=measurer)
    context = multiprocessing.get_context("spawn")  # no copy of the parent's threads and memory
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(max_pixels,))
    under_way: deque[tuple[list[Record], Future[list[Examined | Rejected]]]] = deque()
    try:
        for records in tasks:
            under_way.append((records, _undisturbed(executor, job, records)))
            if len(under_way) >= _WINDOW * workers:
                yield from under_way[0][1].result()
                under_way.popleft()
        while under_way:
            yield from under_way[0][1].result()
            under_way.popleft()
    except BrokenProcessPool:
        first, last = (escape(under_way[place][0][place].name) for place in (0, -1))
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


def _undisturbed(
    executor: ProcessPoolExecutor, job: Callable[[list[Record]], list[Examined | Rejected]], records: list[Record]
) -> Future[list[Examined | Rejected]]:
    """Submit; a worker that is started now inherits that Ctrl-C is blocked (it reaches the whole group), from its first
    moment on: the parent hears it and ends its workers."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(job, records)
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


def _examined(
    record: Record, decoder: Decoder, annotator: Annotator | None, measurer: Measurer | None
) -> Examined | Rejected:
    try:
        digest = _sha256(record.picture)
        decoded = decoder(record.picture)
    except Refused as reason:
        return Rejected(record.name, str(reason))
    known = annotator(record.truth, decoded) if annotator and record.truth else None
    depth = measurer(record.depth, decoded) if measurer and record.depth is not None else None
    content = decoded.content or digest[:32]
    whole = decoded, digest, content, known, record.captions, depth
    return Examined(record.name, record.split, record.label, record.group, *whole)


def _sha256(picture: Picture) -> str:
    if not isinstance(picture, Path):
        return hashlib.sha256(picture.tobytes() if isinstance(picture, np.ndarray) else picture).hexdigest()
    with regular_file(picture) as handle:
        try:
            return hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise Refused(f"not readable: {error.strerror}") from None
