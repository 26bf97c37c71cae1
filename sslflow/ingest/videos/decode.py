"""A video's frames and samples, exact in time, from one pass of ffmpeg; and which times they really stand for."""

from __future__ import annotations

import math
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from sslflow.ingest.videos.ffmpeg import Program, find, one_pass
from sslflow.ingest.videos.inspect import Media, Unusable, telling
from sslflow.runtime.process import run

TOLERANCE_S = 0.25
"""A file that ends so much earlier than its container claims has been cut short."""
LIMIT_S = 1800.0

Span = tuple[float, float]
"""From when to when, in seconds from the start of the file."""


class Stopped(Exception):
    """Decoding was called off from here: nothing is known of the video."""


@dataclass(frozen=True)
class Decoded:
    """One video. Its arrays are memory-mapped and valid as long as `decoded` is open."""

    frames: np.ndarray
    """uint8 `(n, side, side, 3)`: frame i is what is to be seen at i / fps seconds."""
    sound: np.ndarray
    """int16 `(m,)`, mono: sample i is heard at i / rate seconds."""
    picture: Span
    """Where frames are the file's own; those before are copies of the first."""
    heard: tuple[Span, ...]
    """Where samples are the file's own, in order; between these spans is silence that was put in."""


@contextmanager
def decoded(
    path: Path,
    media: Media,
    program: Program | None = None,
    *,
    fps: int,
    side: int,
    rate: int,
    scratch: Path | None = None,
    limit_s: float = LIMIT_S,
    stop: threading.Event | None = None,
) -> Iterator[Decoded]:
    """All of a video whose `media` has a picture; of its sound, if it has any, `rate` samples a second.

    It goes through files without a name in the folder `scratch` (the system's, if there is none given), so that memory
    doesn't grow with the video. Raises `Unusable` for what is damaged or cut short: of such a file nothing is used,
    since a decoder that goes on after an error makes things up. Raises `Stopped` when `stop` is set.
    """
    assert media.picture is not None
    chosen = program or find()
    video, audio = media.picture.index, media.sound.index if media.sound else None
    # Times in a broken file may be years apart, and all that lies between would be filled up.
    longest = None if media.duration is None else 2 * media.duration + 600.0
    with ExitStack() as opened:
        frames, sound = (opened.enter_context(tempfile.TemporaryFile(dir=scratch)) for _ in range(2))
        picture_times, sound_times = _Times(), _Times()
        ended = run(
            lambda pipes: one_pass(
                chosen, path, pipes, video=video, audio=audio, fps=fps, side=side, rate=rate, longest=longest
            ),
            (frames.write, sound.write, picture_times, sound_times),
            limit_s=limit_s,
            stop=stop,
        )
        if ended.why == "stopped":
            raise Stopped
        if ended.why:
            raise Unusable(f"too slow: decoding {ended.why}")
        seen = _mapped(frames, np.uint8, (side, side, 3))
        samples = _mapped(sound, np.int16, ())
        picture, heard = _picture_span(picture_times.found), _spans(sound_times.found, len(samples) / rate)
        end = max([picture[1], *(span[1] for span in heard)])
        _require_whole(ended.code, ended.errors, media, end, len(seen), len(samples))
        yield Decoded(seen, samples, picture, heard)


class _Times:
    """A sink for what the filter `metadata` prints: the time of each piece that came out of a decoder."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self._rest = b""

    def __call__(self, piece: bytes) -> None:
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if time := re.search(rb"pts_time:(-?[\d.]+(?:e[-+]?\d+)?)", line):
                self.found.append(float(time[1]))


def _mapped(file: IO[bytes], kind: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    """The file's content, `(n, *shape)`, without what is left over of an item that isn't whole."""
    file.flush()
    count = file.tell() // (np.dtype(kind).itemsize * math.prod(shape))
    if not count:  # an empty file can't be mapped
        return np.empty((0, *shape), kind)
    return np.memmap(file, kind, mode="r", shape=(count, *shape))


def _picture_span(times: list[float]) -> Span:
    """A frame lasts until the next one, however long that is: so films, screens and slides are recorded. How long the
    last one lasts isn't told; as long as is usual."""
    if not times:
        return 0.0, 0.0
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    return max(min(times), 0.0), max(times) + max(usual, 0.0)


def _spans(times: list[float], end: float) -> tuple[Span, ...]:
    """Where there is sound. A piece of it lasts about as long as the others, unless something is missing after it."""
    if not times or not end:
        return ()
    steps = np.diff(times)
    if not len(steps):
        return ((max(times[0], 0.0), end),)
    usual = float(np.quantile(steps, 0.9))  # the longer ones, for formats whose pieces differ in length
    breaks = np.flatnonzero(steps > 1.5 * usual + 0.001)
    starts = [times[0], *(times[place + 1] for place in breaks)]
    ends = [*(times[place] + usual for place in breaks), end]
    return tuple((max(start, 0.0), min(until, end)) for start, until in zip(starts, ends, strict=True))


def _require_whole(code: int, errors: str, media: Media, end: float, frames: int, samples: int) -> None:
    """Exit status alone tells little: with some containers ffmpeg takes half a file for a whole one."""
    told = media.duration
    cut = re.search("partial file|ended prematurely|corrupt input packet|[Tt]runcat", errors)
    if told is not None and end < told - TOLERANCE_S and (cut or (code == 0 and not media.others)):
        raise Unusable(f"cut short: of the {told:.2f} s that it claims to have not all are there")
    if code and "received no packets" in errors and telling(errors).endswith("received no packets."):
        raise Unusable("empty: one of its tracks holds nothing")
    if code:
        raise Unusable(f"damaged: ffmpeg says: {telling(errors)}")
    if not frames:
        raise Unusable("empty: the track of pictures holds nothing")
    if media.sound and not samples:
        raise Unusable("empty: the track of sound holds nothing")
