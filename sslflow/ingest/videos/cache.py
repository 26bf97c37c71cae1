"""One video's clips, kept from run to run: a stopped run goes on, and a video more costs only itself."""

from __future__ import annotations

import ast
import hashlib
import threading
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslflow.ingest.videos.cut import Cut, Cuts, Grid, cut, frames_of, sound_of
from sslflow.ingest.videos.decode import decoded
from sslflow.ingest.videos.ffmpeg import Program
from sslflow.ingest.videos.inspect import Media, Picture, Sound, Unusable, probe
from sslflow.runtime.files import read_json, write_json
from sslflow.runtime.folders import replacing_folder

OK = "ok"

_MODULES = ("cache", "cut", "decode", "ffmpeg", "inspect")
"""Modules that make of a file what it is in the cache: they are part of the key."""
_FACTS = "facts.json"


@dataclass(frozen=True)
class Entry:
    """What became of one video."""

    folder: Path
    status: str
    """`ok`, or the reason why it can't be used."""
    media: Media | None
    """None where it couldn't be opened."""
    cuts: Cuts

    def frames(self) -> np.ndarray:
        """uint8 `(clips, frames, 3, side, side)`, memory-mapped."""
        return np.lib.format.open_memmap(self.folder / "frames.npy", mode="r")

    def sound(self) -> np.ndarray:
        """int16 `(clips, samples)`, memory-mapped."""
        return np.lib.format.open_memmap(self.folder / "sound.npy", mode="r")


def key(sha256: str, grid: Grid, program: Program) -> str:
    """The name of an entry: another for another content, another form of the clips, another ffmpeg, other code."""
    said = repr((_CODE, sha256, astuple(grid), program.version))
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _code() -> str:
    files = [Path(__file__).with_name(f"{name}.py") for name in _MODULES]
    return "\n".join(ast.dump(ast.parse(file.read_bytes())) for file in files)  # comments and layout don't count


_CODE = _code()
"""Made when this is imported: Python 3.11 fails where several threads parse at once."""


def entry(
    root: Path, sha256: str, file: Path, grid: Grid, program: Program, limit_s: float, stop: threading.Event
) -> Entry:
    """The video's entry: from the cache in `root`, or made now. Raises `Stopped`, and `OSError` for a full disk and the
    like."""
    name = key(sha256, grid, program)
    folder = root / name[:2] / name
    return _read(folder, grid) or _make(folder, file, grid, program, limit_s, stop)


def _read(folder: Path, grid: Grid) -> Entry | None:
    """None where there is none, or where it is broken."""
    try:
        facts = read_json(folder / _FACTS)
        if facts["status"].startswith("too slow"):  # another time the machine may be less busy
            return None
        cuts = Cuts(tuple(Cut(*values) for values in facts["cuts"]), facts["silent"], facts["holes"])
        found = Entry(folder, facts["status"], _media(facts["media"]), cuts)
        if cuts.kept:
            shape = (len(cuts.kept), grid.frames, 3, grid.side, grid.side)
            if found.frames().shape != shape or found.sound().shape != (len(cuts.kept), grid.samples):
                return None
    except Exception:  # of any kind, by where a file was cut
        return None
    return found


def _make(folder: Path, file: Path, grid: Grid, program: Program, limit_s: float, stop: threading.Event) -> Entry:
    with replacing_folder(folder) as temporary:
        media, cuts, status = None, Cuts(()), OK
        try:
            media = probe(file, program)
            require_streams(media, grid)
            form = {"fps": grid.fps, "side": grid.side, "rate": grid.rate}
            with decoded(file, media, program, **form, scratch=temporary, limit_s=limit_s, stop=stop) as video:
                cuts = cut(video, grid)
                _write(temporary / "frames.npy", [frames_of(video, one, grid) for one in cuts.kept])
                _write(temporary / "sound.npy", [sound_of(video, one, grid) for one in cuts.kept])
        except Unusable as reason:
            status = str(reason)
        facts = {
            "status": status,
            "media": media and asdict(media),
            "cuts": [astuple(one) for one in cuts.kept],
            "silent": cuts.silent,
            "holes": cuts.holes,
        }
        write_json(temporary / _FACTS, facts)
    return Entry(folder, status, media, cuts)


def require_streams(media: Media, grid: Grid) -> None:
    """Raises `Unusable` where a stream that is needed is missing."""
    if media.picture is None:
        raise Unusable("no picture but a cover" if media.cover else "no picture: sound only")
    if media.sound is None and grid.sound == "required":
        raise Unusable("no sound track")


def _write(file: Path, arrays: list[np.ndarray]) -> None:
    """Views of a memory-mapped file, one after another, so that a long video is never in memory as a whole."""
    with file.open("wb") as handle:
        kind = np.lib.format.dtype_to_descr(arrays[0].dtype)
        header = {"descr": kind, "fortran_order": False, "shape": (len(arrays), *arrays[0].shape)}
        np.lib.format.write_array_header_1_0(handle, header)
        for array in arrays:
            handle.write(np.ascontiguousarray(array).data)


def _media(found: dict[str, Any] | None) -> Media | None:
    if found is None:
        return None
    picture, sound = found["picture"], found["sound"]
    streams = {"picture": picture and Picture(**picture), "sound": sound and Sound(**sound)}
    return Media(**{**found, **streams})
