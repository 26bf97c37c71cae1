r"""Build `data/samples/instruments`: short videos of drawn instruments that move to the sound of real ones.

    python data/samples/instruments.py FLUID MUSESCORE

FLUID and MUSESCORE are two soundfonts. On Debian or a relative of it:

    apt-get install libfluidsynth3                                       # 2.3.1 was used
    apt-get download fluid-soundfont-gm musescore-general-soundfont      # 3.1-5.3 and 0.2.1-1; 195 MB
    for package in *soundfont*.deb; do dpkg -x $package FOLDER; done
    pip install pyfluidsynth==1.4.0
    python data/samples/instruments.py FOLDER/usr/share/sounds/sf2/FluidR3_GM.sf2 \
        FOLDER/usr/share/sounds/sf3/MuseScore_General_Full.sf3

The drawings are those that drawings.py gathered, and other things those of data/samples/emoji. Frames, sound and table
are a pure function of these files and the versions above; the bytes of the videos also depend on the encoders in
ffmpeg (that of imageio-ffmpeg 0.8.1 was used). The licence texts and SOURCE.md beside the videos are kept by hand. It
takes about ten minutes of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import struct
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from drawings import SETS, Drawings, read_drawings
from melody import RATE, SECONDS, Player, draw_notes, draw_onsets, record
from orchestra import INSTRUMENTS, Preset
from PIL import Image
from scene import FPS, INSTRUMENT, OTHER, SIDE, draw_thing, film, gliding, place

HERE = Path(__file__).parent
VIDEOS = {"train": 44, "test": 10}
"""Videos of each instrument."""
TEST_SOURCES = 3
"""Sources of each instrument that only the test split has."""
SIZE = 38_000
"""Bytes of every video: what is left is filled with zeros, so that the size tells nothing."""
NO_DISTRACTORS = {"music", "sound", "musical-instrument", "phone", "hotel", "time"}
"""Sub-categories with things that make music or ring."""
DISTRACTORS = ("Animals & Nature", "Food & Drink", "Activities", "Travel & Places", "Objects")


@dataclass(frozen=True)
class Video:
    split: str
    label: str
    number: int
    preset: Preset
    artist: str
    drawing: int
    """Which of the artist's drawings of the instrument."""

    @property
    def path(self) -> str:
        return f"videos/{self.split}/{self.label}/{self.number:02d}.mp4"

    @property
    def source(self) -> str:
        return f"{self.preset.font} {self.preset.name} x {self.artist}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("fluid", type=Path, help="FluidR3_GM.sf2")
    parser.add_argument("musescore", type=Path, help="MuseScore_General_Full.sf3")
    parser.add_argument("--target", type=Path, default=HERE / "instruments", help="where the videos go")
    arguments = parser.parse_args()
    players = {"fluid": Player(arguments.fluid), "musescore": Player(arguments.musescore)}
    drawings = read_drawings()
    distractors = read_distractors(HERE / "emoji")
    if (arguments.target / "videos").exists():
        shutil.rmtree(arguments.target / "videos")
    rows = []
    for video in plan(drawings):
        sound, onsets = hear(video, players[video.preset.font])
        drawing = drawings[video.label][video.artist][video.drawing]
        frames, box = see(video, onsets, drawing, distractors[video.split])
        encode(frames, sound, arguments.target / video.path)
        rows.append(
            {"path": video.path, "split": video.split, "label": video.label, "source": video.source}
            | {"sound": f"{video.preset.font} {video.preset.name}", "picture": video.artist}
            | {**box, "onsets": onsets}
        )
        print(f"{video.path}  {video.source}", flush=True)
    schema = pa.schema(
        [(name, pa.string()) for name in ("path", "split", "label", "source", "sound", "picture")]
        + [(name, pa.float32()) for name in ("x0", "y0", "x1", "y1")]
        + [("onsets", pa.list_(pa.float32()))]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), arguments.target / "videos.parquet", compression="zstd")
    print(f"instruments: {len(rows)} videos, {len(rows) * SIZE / 1e6:.1f} MB")


def plan(drawings: Drawings) -> list[Video]:
    """Every video: what a split has of an instrument's presets and drawings takes turns, so that every pair of them
    occurs about equally."""
    videos = []
    for label, instrument in INSTRUMENTS.items():
        artists = [name for name in dict.fromkeys(one.artist for one in SETS) if name in drawings[label]]
        tested = test_sources(len(instrument.presets), len(artists))
        for split in VIDEOS:
            pairs = [
                (preset, artist, drawing)
                for j, artist in enumerate(artists)
                for drawing in range(len(drawings[label][artist]))
                for i, preset in enumerate(instrument.presets)
                if ((i, j) in tested) == (split == "test")
            ]
            videos += [Video(split, label, n, *pairs[n % len(pairs)]) for n in range(VIDEOS[split])]
    return videos


def test_sources(presets: int, artists: int) -> set[tuple[int, int]]:
    """Which presets by which artists are tested on: on the diagonal, so that all of them stay in the training split
    with others."""
    return {(k % presets, k % artists) for k in range(TEST_SOURCES)}


def read_distractors(folder: Path) -> dict[str, list[Image.Image]]:
    """Drawings of other things by split."""
    found: dict[str, list[Image.Image]] = {"train": [], "test": []}
    for vendor in ("noto", "twemoji", "openmoji"):
        for row in pq.read_table(folder / f"{vendor}.parquet").to_pylist():
            if row["category"] in DISTRACTORS and row["subcategory"] not in NO_DISTRACTORS:
                found[row["split"]].append(Image.open(io.BytesIO(row["image"])).convert("RGBA"))
    return found


def hear(video: Video, player: Player) -> tuple[np.ndarray, list[float]]:
    """The sound, int16 `(round(SECONDS * RATE),)`, and when its notes begin."""
    preset, rng = video.preset, stream(video, "sound")
    onsets = draw_onsets(rng)
    tuning = rng.uniform(-3, 3) if preset.bank == 128 else rng.uniform(-0.5, 0.5)
    notes = draw_notes(onsets, preset.keys or INSTRUMENTS[video.label].keys, rng)
    return record(player.play((preset.bank, preset.number), notes, tuning), rng), onsets


def see(
    video: Video, onsets: Sequence[float], drawing: Image.Image, distractors: Sequence[Image.Image]
) -> tuple[list[np.ndarray], dict[str, float]]:
    """The frames, uint8 `(SIDE, SIDE, 3)`, and the box of all that `drawing` covers in any of them."""
    rng = stream(video, "picture")
    other = distractors[int(rng.integers(len(distractors)))]
    things = [
        place(draw_thing(drawing, onsets, INSTRUMENT, rng), rng),
        gliding(draw_thing(other, draw_onsets(rng), OTHER, rng), SECONDS, rng),
    ]
    frames, seen = zip(*film(things, SECONDS, rng), strict=True)
    rows, columns = (np.flatnonzero(np.any(seen, axis=(0, axis))) for axis in (2, 1))
    box = {"x0": columns[0], "y0": rows[0], "x1": columns[-1] + 1, "y1": rows[-1] + 1}
    return list(frames), {name: float(edge / SIDE) for name, edge in box.items()}


def stream(video: Video, purpose: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(f"instruments {video.path} {purpose}".encode()).digest()))


def encode(frames: Sequence[np.ndarray], sound: np.ndarray, target: Path) -> None:
    """One MP4 file of SIZE bytes: H.264 and AAC, without metadata."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "frames").write_bytes(b"".join(frame.tobytes() for frame in frames))
        with wave.open(str(folder / "sound.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(sound.tobytes())
        kilobits = 46.0
        while len(content := mux(folder, kilobits)) > SIZE - 8:
            kilobits *= 0.96
    spare = SIZE - len(content)
    target.write_bytes(content + struct.pack(">I4s", spare, b"free") + bytes(spare - 8))


def mux(folder: Path, kilobits: float) -> bytes:
    """Two passes, so that every video gets the bits that are meant for it; one thread: the same bits every time."""
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIDE}x{SIDE}", "-r", str(FPS), "-i", "frames"]
    video = ["-c:v", "libx264", "-preset", "veryslow", "-pix_fmt", "yuv420p", "-b:v", f"{kilobits:.2f}k", "-g", "36"]
    plain = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
    start = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
    first = [*start, *source, *video, "-threads", "1", "-pass", "1", "-an", "-f", "null", "-"]
    sound = ["-i", "sound.wav", "-c:a", "aac", "-b:a", "40k"]
    second = [*start, *source, *sound[:2], *video, *sound[2:], "-threads", "1", "-pass", "2", *plain]
    for command in (first, [*second, "-movflags", "+faststart", "out.mp4"]):
        subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return (folder / "out.mp4").read_bytes()


if __name__ == "__main__":
    main()
