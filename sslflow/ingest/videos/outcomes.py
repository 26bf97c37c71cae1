"""What becomes of each video: hashed, found to be a copy, decoded; several at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from sslflow.data.splits import Split
from sslflow.ingest.images.decode import Refused
from sslflow.ingest.records import escape
from sslflow.ingest.videos.cache import OK, Entry, entry
from sslflow.ingest.videos.cut import Grid
from sslflow.ingest.videos.ffmpeg import Program
from sslflow.ingest.videos.hashes import Hashes
from sslflow.ingest.videos.sources import VideoFile
from sslflow.progress import Progress

HASHES = "hashes.json"

_TELL_EVERY = 10.0


@dataclass
class Outcome:
    """One video file, in the order in which the source gave it."""

    video: VideoFile
    status: str = OK
    sha256: str = ""
    size: int = 0
    """Bytes."""
    copy: bool = False
    """Whether an earlier file has the same content: only that one is used."""
    entry: Entry | None = None
    split: Split | None = None


def outcomes(
    files: Sequence[VideoFile], grid: Grid, program: Program, workers: int, limit_s: float, cache: Path
) -> list[Outcome]:
    """All of them; whatever is wrong with a video is its status. `workers` of ffmpeg run at a time, each for at most
    `limit_s` seconds; where this is interrupted, they end, and what was done is found in `cache` the next time."""
    found = [Outcome(file) for file in files]
    hashes = Hashes(cache / HASHES)
    stop = threading.Event()

    def look(one: Outcome) -> None:
        try:
            one.sha256, one.size = hashes.of(one.video.file)
        except Refused as reason:
            one.status = str(reason)
        if one.sha256 and not one.size:
            one.status = "empty file"

    def decode(one: Outcome) -> None:
        one.entry = entry(cache, one.sha256, one.video.file, grid, program, limit_s, stop)
        one.status = one.entry.status

    _for_each(look, found, workers, stop)
    hashes.save()
    first: dict[str, Outcome] = {}
    for one in found:
        if one.status == OK and first.setdefault(one.sha256, one) is not one:
            one.copy, one.status = True, f"a copy of {escape(first[one.sha256].video.name)}"
    _for_each(decode, [one for one in found if one.status == OK], workers, stop, "clips")
    return found


def _for_each(
    job: Callable[[Outcome], None], items: Sequence[Outcome], workers: int, stop: threading.Event, label: str = ""
) -> None:
    """In threads: the work is done by programs of their own, and the pieces that are Python's wait for the disk."""
    progress = Progress(label, len(items), "video") if label and items else None
    told = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        try:
            under_way: list[Future[None]] = [pool.submit(job, item) for item in items]
            for done, future in enumerate(as_completed(under_way), start=1):
                future.result()
                now = time.monotonic()
                if progress and (not progress.bar.disable or now - told >= _TELL_EVERY):
                    progress.say(done)
                    told = now
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            if progress:
                progress.close()
