"""Videos made on the spot by ffmpeg: frames that carry their number, sound with clicks at known times."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sslflow.ingest.videos.ffmpeg import find

SIDE = 64
RATE = 48_000
CLICKS = np.array([0.31, 0.9017, 1.2203, 1.75, 2.4003, 2.9999, 3.3331, 4.0507, 4.4449, 5.1313, 5.7007])
"""Seconds; no two gaps are alike."""


def ffmpeg(*words: str | Path, content: bytes = b"") -> None:
    """Run ffmpeg, which must end well, with `content` as its standard input."""
    command = [find().path, "-hide_banner", "-loglevel", "error", "-y", "-threads", "1", *map(str, words)]
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def numbered(count: int) -> bytes:
    """RGB frames; frame n shows n in binary, as 4 x 2 black or white fields."""
    bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
    fields = bits.reshape(count, 4, 2).astype(np.uint8) * 255
    grey = fields.repeat(SIDE // 4, axis=1).repeat(SIDE // 2, axis=2)
    return np.repeat(grey[..., None], 3, axis=3).tobytes()


def number_of(frame: np.ndarray) -> int:
    """The number that a frame `(side, side, 3)` shows, whatever compression has done to it."""
    fields = frame.mean(axis=2).reshape(4, frame.shape[0] // 4, 2, frame.shape[1] // 2)[:, 4:-4, :, 4:-4].mean((1, 3))
    return int(((fields.ravel() > 128) << np.arange(8)).sum())


def clicking(seconds: float = 6.0, clicks: Sequence[float] | np.ndarray = CLICKS) -> bytes:
    """Soft noise with clicks of half a millisecond, whose middles are at the times given: int16, one channel."""
    sound = np.random.default_rng(0).normal(0, 150, round(seconds * RATE))
    for middle in (round(time * RATE) for time in clicks if time < seconds - 0.01):
        sound[middle - 12 : middle + 13] = 25_000 * np.hanning(25)
    return sound.astype("<i2").tobytes()


def click_times(sound: np.ndarray, rate: int) -> np.ndarray:
    """Seconds at which there are clicks."""
    loud = np.flatnonzero(np.abs(sound.astype(float)) > 8_000)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 0.05 * rate) + 1)
    return np.array([group[np.abs(sound[group].astype(float)).argmax()] / rate for group in groups if len(group)])


def make(
    file: Path,
    *,
    rate: str = "25",
    seconds: float = 6.0,
    times: str = "",
    picture: Sequence[str] = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "20", "-pix_fmt", "yuv420p"),
    sound: Sequence[str] = ("-c:a", "aac", "-b:a", "128k"),
) -> Path:
    """A video of numbered frames, `rate` a second or at the `times` of a setpts expression, with clicks."""
    file.parent.mkdir(parents=True, exist_ok=True)
    top, _, bottom = rate.partition("/")
    count = min(round(seconds * int(top) / int(bottom or 1)), 255)
    (raw := file.with_name(f"{file.name}.pcm")).write_bytes(clicking(seconds))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{SIDE}x{SIDE}", "-framerate", rate, "-i", "-"]
    variable = (
        ["-vf", f"settb=1/90000,setpts={times}", "-fps_mode", "vfr", "-enc_time_base", "1:90000"] if times else []
    )
    heard = ["-f", "s16le", "-ar", str(RATE), "-ac", "1", "-i", raw]
    ffmpeg(*source, *heard, "-map", "0", "-map", "1", *variable, *picture, *sound, file, content=numbered(count))
    raw.unlink()
    return file


def shifted(file: Path, source: Path, *, picture: float = 0.0, sound: float = 0.0) -> Path:
    """The same streams, one of them later."""
    late = ["-itsoffset", str(picture or sound), "-i", source]
    order = ("1:v", "0:a") if picture else ("0:v", "1:a")
    ffmpeg("-i", source, *late, "-map", order[0], "-map", order[1], "-c", "copy", file)
    return file


def damaged(file: Path, source: Path, change: Callable[[bytearray], object]) -> Path:
    """A copy whose bytes `change` has changed."""
    content = bytearray(source.read_bytes())
    change(content)
    file.write_bytes(content)
    return file
