"""What is in a video file, from what ffmpeg says when it opens it: no ffprobe is needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sslflow.ingest.videos.ffmpeg import Program, find, probing
from sslflow.runtime.process import run

LIMIT_S = 60.0

_LONGEST_TALK = 2**20  # chapters and tags of a long film

T = TypeVar("T")


class Unusable(ValueError):
    """Why a video can't be used, in words for `videos.csv`."""


@dataclass(frozen=True)
class Picture:
    """The stream of frames."""

    index: int
    codec: str
    width: int
    height: int
    """Pixels as they are stored: of a video that is to be turned, not as it is looked at."""
    fps: float
    """Frames a second, on average; 0 where the file doesn't say."""
    rotation: float
    """Degrees, counterclockwise."""
    start: float
    """Seconds."""


@dataclass(frozen=True)
class Sound:
    """The stream of samples."""

    index: int
    codec: str
    rate: int
    layout: str
    """`mono`, `stereo`, `5.1(side)`, …"""
    start: float


@dataclass(frozen=True)
class Media:
    """What a file holds: of several streams of a kind the first that it calls default, or else the first."""

    container: str
    duration: float | None
    """Seconds, as the container claims; None where it doesn't."""
    picture: Picture | None
    sound: Sound | None
    cover: bool
    """Whether there are attached pictures, such as an album's cover; they are no video."""
    others: bool
    """Whether there are more streams: subtitles, other languages, data. The container's duration is theirs, too."""


def probe(path: Path, program: Program | None = None) -> Media:
    """What the file holds. Raises `Unusable` where ffmpeg can't open it."""
    chosen = program or find()
    ended = run(lambda _: probing(chosen, path), limit_s=LIMIT_S, kept=_LONGEST_TALK)
    if ended.why:
        raise Unusable(f"not readable: to open it {ended.why}")
    return parse(ended.errors)


def parse(said: str) -> Media:
    """The same, from ffmpeg's words."""
    begin = re.search(r"^Input #0, (.+?), from ", said, re.MULTILINE)
    if begin is None:
        raise Unusable(_why_not(said))
    said = said[begin.start() :]
    length = re.search(r"^  Duration: (\d+):(\d+):(\d+\.\d+)", said, re.MULTILINE)
    hours, minutes, seconds = (float(part) for part in length.groups()) if length else (0.0, 0.0, 0.0)
    duration = 3600 * hours + 60 * minutes + seconds
    first = re.search(r"^  Duration: .*?, start: (-?\d+\.\d+)", said, re.MULTILINE)
    if first and begin[1].startswith("matroska"):  # which counts from zero, not from where its streams start
        duration -= float(first[1])

    pictures: list[tuple[bool, Picture]] = []
    sounds: list[tuple[bool, Sound]] = []
    cover, streams = False, 0
    # A stream's line, and the more deeply indented ones below it.
    for found in re.finditer(r"^ {2,4}Stream #0:(\d+)[^:\n]*: (\w+): (.*)((?:\n {4,}.*)*)", said, re.MULTILINE):
        index, kind, line, below = int(found[1]), found[2], found[3], found[4]
        if kind == "Video" and "(attached pic)" in line:
            cover = True
            continue
        streams += 1
        default = "(default)" in line
        if kind == "Video":
            size = re.search(r", (\d+)x(\d+)(?=[ ,]|$)", line)
            turn = re.search(r"rotation of (-?[\d.]+) degrees", below)
            pictures.append(
                (
                    default,
                    Picture(
                        index,
                        _codec(line),
                        int(size[1]) if size else 0,
                        int(size[2]) if size else 0,
                        _number(r", ([\d.]+k?) fps", line),
                        float(turn[1]) if turn else 0.0,
                        _number(r", start (-?[\d.]+)", line),
                    ),
                )
            )
        elif kind == "Audio":
            form = re.search(r", (\d+) Hz, ([^,]+)", line)
            sound = Sound(
                index,
                _codec(line),
                int(form[1]) if form else 0,
                form[2].strip() if form else "",
                _number(r", start (-?[\d.]+)", line),
            )
            sounds.append((default, sound))
    picture, sound = _first(pictures), _first(sounds)
    used = (picture is not None) + (sound is not None)
    return Media(begin[1], duration if length and duration > 0 else None, picture, sound, cover, streams > used)


def telling(said: str) -> str:
    """The line of ffmpeg's complaints that says most: the first that isn't about its own inner workings."""
    lines = [re.sub(r"^(\[[^\]]* @ 0x[0-9a-f]+\] ?)+", "", line).strip() for line in said.splitlines()]
    inner = ("Task finished", "Terminating thread", "Error opening input", "Conversion failed", "Last message repeated")
    good = [line for line in lines if line and not line.startswith(inner)]
    return good[0] if good else " ".join(lines[-1:]) or "for no reason that ffmpeg tells"


def _why_not(said: str) -> str:
    if "moov atom not found" in said and "low score" not in said:
        return "cut short: the index, which stands at the file's end, is missing"
    reason = re.search(r"Error opening input: (.*)", said)
    words = telling(said) if "low score" not in said else ""
    if not words or "moov atom not found" in words:
        words = reason[1] if reason else "for no reason that ffmpeg tells"
    return f"not a video of a known kind: {words}"


def _codec(line: str) -> str:
    return re.split(r"[ ,]", line, maxsplit=1)[0]


def _number(pattern: str, line: str) -> float:
    found = re.search(pattern, line)
    if not found:
        return 0.0
    return float(found[1].removesuffix("k")) * (1000 if found[1].endswith("k") else 1)


def _first(found: list[tuple[bool, T]]) -> T | None:
    return next((stream for default, stream in found if default), found[0][1] if found else None)
