"""The program ffmpeg: where it is, its version, and the command of one pass over a video, built with ffmpeg-python."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from sslflow.runtime.process import run

SETTING = "clips.ffmpeg"

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,live_flv,asf,ogg,mxf,dv,nut,wtv,rm,ivf,h264"
)
"""Kinds of files that are opened. Not among them: playlists and descriptions of sessions, which name other files."""


_FILE = "<file>"  # ffmpeg-python can't encode every name that a file may have


@dataclass(frozen=True)
class Program:
    """An ffmpeg that runs."""

    path: str
    version: str


def find(setting: str = "") -> Program:
    """The ffmpeg that `setting` names (a file, or a name on the PATH), or else the first there is: the system's, the
    one that the package imageio-ffmpeg brings. Raises `ValueError` where there is none, or where it doesn't run."""
    path = shutil.which(setting) if setting else shutil.which("ffmpeg") or _packaged()
    if path is None:
        raise ValueError(
            f"{SETTING}: there is no program {setting!r}"
            if setting
            else f"there is no ffmpeg: install it, or the package imageio-ffmpeg, or name one in {SETTING}"
        )
    try:
        banner = run(lambda _: [path, "-nostdin"], limit_s=60).errors
    except OSError as error:
        raise ValueError(f"{path}: doesn't run: {error.strerror}") from None
    found = re.search(r"^ffmpeg version (\S+)", banner, re.MULTILINE)
    if not found:
        raise ValueError(f"{path}: expected ffmpeg, found a program that says {banner[:80]!r}; set {SETTING}")
    return Program(path, found[1])


def _packaged() -> str | None:
    try:
        module = importlib.import_module("imageio_ffmpeg")
        return module.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


def bindings() -> ModuleType:
    """The module of ffmpeg-python. Raises `ValueError` where another package of PyPI has taken its name, `ffmpeg`."""
    module = importlib.import_module("ffmpeg")
    if not hasattr(module, "merge_outputs"):
        raise ValueError(
            f"{module.__file__}: this is not ffmpeg-python, but another package with a module of the same name; "
            "`pip uninstall ffmpeg python-ffmpeg`, then `pip install --force-reinstall ffmpeg-python`"
        )
    return module


def source(file: Path) -> str:
    """A file's name as ffmpeg takes it for nothing but a file's name, whatever is in it (`-`, `:`, `%03d`)."""
    return f"file:{os.fspath(file)}"


def probing(program: Program, file: Path) -> list[str]:
    """The command that makes ffmpeg say what it sees in a file; it ends with a complaint that there is no output."""
    return [program.path, "-hide_banner", "-nostdin", "-format_whitelist", DEMUXERS, "-i", source(file)]


def one_pass(
    program: Program,
    file: Path,
    pipes: Sequence[int],
    *,
    video: int,
    audio: int | None,
    fps: int,
    side: int,
    rate: int,
    longest: float | None,
) -> list[str]:
    """The command that decodes both streams of a file in one pass, up to `longest` seconds, into the `pipes`: frames,
    sound, and the times of the file's own pieces of each, as the filter `metadata` prints them.

    Frame i is what is to be seen at i / fps seconds, sample i is heard at i / rate seconds, both from the start of the
    file: what lies before a stream's own start is filled up, and so are holes, and the times tell where. The middle
    square of the frame, upright and with square pixels, is resized to `side`. ffmpeg stops at the first error.
    """
    frames, sound, picture_times, sound_times = pipes
    opened = bindings().input(_FILE, format_whitelist=DEMUXERS, threads=1)
    to_end = {} if longest is None else {"t": f"{longest:.3f}"}
    picture = (
        opened[str(video)]
        .filter("metadata", mode="add", key="t", value="0")
        .filter("metadata", mode="print", key="t", file=f"pipe:{picture_times}")
        .filter("fps", fps=fps, round="up", start_time=0)  # round=up: never a frame that is still to come
        .filter("crop", w="min(iw,ih/sar)", h="min(ih,iw*sar)")
        .filter("scale", w=side, h=side, flags="bicubic+accurate_rnd+full_chroma_int")
        .filter("setsar", 1)
    )
    outputs = [picture.output(f"pipe:{frames}", format="rawvideo", pix_fmt="rgb24", **to_end)]
    if audio is not None:
        heard = (
            opened[str(audio)]
            .filter("ametadata", mode="add", key="t", value="0")
            .filter("ametadata", mode="print", key="t", file=f"pipe:{sound_times}")
            # Silence is put into holes of 10 ms and more: containers round times to 1 ms, a lost packet is 20 ms.
            .filter("aresample", rate, **{"async": 1, "first_pts": 0, "min_hard_comp": 0.01})
            .filter("aformat", sample_fmts="s16", sample_rates=rate, channel_layouts="mono")
        )
        outputs.append(heard.output(f"pipe:{sound}", format="s16le", **to_end))
    said = ("-hide_banner", "-nostdin", "-loglevel", "error", "-filter_complex_threads", "1", "-xerror")
    words = bindings().merge_outputs(*outputs).global_args(*said).compile(cmd=program.path)
    return [source(file) if word == _FILE else word for word in words]
