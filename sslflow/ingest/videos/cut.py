"""Which clips a decoded video holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sslflow.ingest.videos.decode import Decoded, Span
from sslflow.ingest.videos.inspect import Unusable

SILENCE_DB = -60.0
FLOOR_DB = -120.0
"""In place of minus infinity, for samples that are all zero."""

_EDGE = 1e-6
_FULL_SCALE = 32768.0

SoundNeeded = Literal["required", "optional"]


@dataclass(frozen=True)
class Grid:
    """The form that all clips have."""

    seconds: float
    fps: int
    side: int
    rate: int
    sound: SoundNeeded = "required"
    """`optional`: videos and clips that can't be heard are kept, too."""

    @property
    def frames(self) -> int:
        """Of one clip. Raises `ValueError` where that is no whole number."""
        return _whole(self.seconds * self.fps, f"{self.seconds:g} s of {self.fps} frames a second")

    @property
    def samples(self) -> int:
        """Of one clip. Raises `ValueError` where that is no whole number."""
        return _whole(self.seconds * self.rate, f"{self.seconds:g} s of {self.rate} samples a second")


@dataclass(frozen=True)
class Cut:
    """One clip of a video."""

    start: float
    """Seconds from the start of the file. Frame i of the clip is what is to be seen at `start + i / fps`."""
    first_frame: int
    first_sample: int
    audible: bool
    """Whether its sound is there, whole, and above `SILENCE_DB`."""
    loudness: float
    """Root mean square in dB of full scale; `FLOOR_DB` without sound."""


@dataclass(frozen=True)
class Cuts:
    """The clips of a video, in order, and how many on the grid were left out."""

    kept: tuple[Cut, ...]
    silent: int = 0
    holes: int = 0
    """With a hole in the sound."""


def cut(video: Decoded, grid: Grid) -> Cuts:
    """Clips side by side from the first frame of the grid at which there are both picture and sound, to the end of the
    shorter; with `optional` sound from the first frame to the last. Raises `Unusable` where not one is left."""
    whole = (video.heard[0][0], video.heard[-1][1]) if video.heard else None
    start, end = video.picture
    if grid.sound == "required":
        assert whole is not None
        start, end = max(start, whole[0]), min(end, whole[1])
    _require_length(end - start, video, grid)
    places = list(_places(start, end, len(video.frames), grid))
    if not places:
        raise Unusable(f"too short: no {grid.seconds:g} s from {start:.3f} s, where it starts, to {end:.3f} s")
    kept, silent, holes = [], 0, 0
    for frame in places:
        sample = round(frame * grid.rate / grid.fps)
        here = video.sound[sample : sample + grid.samples]
        there = _heard(video.heard, frame / grid.fps, grid.seconds) and len(here) == grid.samples
        loudness = loudness_db(here) if there else FLOOR_DB
        audible = there and loudness >= SILENCE_DB
        if audible or grid.sound == "optional":
            kept.append(Cut(frame / grid.fps, frame, sample, audible, loudness))
        elif there:
            silent += 1
        else:
            holes += 1
    if not kept:
        raise Unusable("silent" if silent >= holes else "broken sound: a hole in every clip")
    return Cuts(tuple(kept), silent, holes)


def frames_of(video: Decoded, one: Cut, grid: Grid) -> np.ndarray:
    """uint8 `(frames, 3, side, side)`."""
    return video.frames[one.first_frame : one.first_frame + grid.frames].transpose(0, 3, 1, 2)


def sound_of(video: Decoded, one: Cut, grid: Grid) -> np.ndarray:
    """int16 `(samples,)`; zeros where the clip's sound isn't there, or not whole."""
    if one.loudness <= FLOOR_DB:
        return np.zeros(grid.samples, np.int16)
    return video.sound[one.first_sample : one.first_sample + grid.samples]


def loudness_db(sound: np.ndarray) -> float:
    """Root mean square of int16 samples in dB of full scale, at least `FLOOR_DB`."""
    power = float(np.mean(np.square(sound / _FULL_SCALE))) if len(sound) else 0.0
    return max(10 * math.log10(power), FLOOR_DB) if power > 0 else FLOOR_DB


def _require_length(length: float, video: Decoded, grid: Grid) -> None:
    if length + _EDGE >= grid.seconds:
        return
    seen = video.picture[1] - video.picture[0]
    if seen + _EDGE < grid.seconds:
        raise Unusable(f"too short: {seen:.2f} s, a clip takes {grid.seconds:g} s")
    raise Unusable(f"too short: {max(length, 0.0):.2f} s with both picture and sound, a clip takes {grid.seconds:g} s")


def _places(start: float, end: float, frames: int, grid: Grid) -> Iterator[int]:
    """The first frame of each clip."""
    frame = math.ceil(start * grid.fps - _EDGE)
    while (frame + grid.frames) / grid.fps <= end + _EDGE and frame + grid.frames <= frames:
        yield frame
        frame += grid.frames


def _heard(spans: tuple[Span, ...], start: float, seconds: float) -> bool:
    return any(since <= start + _EDGE and start + seconds <= until + _EDGE for since, until in spans)


def _whole(count: float, what: str) -> int:
    if abs(count - round(count)) > _EDGE or round(count) < 1:
        raise ValueError(f"clips: {what} are {count:g}; choose numbers that make it whole")
    return round(count)
