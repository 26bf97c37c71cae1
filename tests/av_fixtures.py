"""Clips made in memory, from which every method can learn something in seconds: coloured squares that move, grow
brighter when they sound, and sound by their colour."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sslflow.data.fields import Fields
from sslflow.data.formats import ClipFormat, described
from sslflow.runtime.files import write_json

COLOURS = {"red": (230, 40, 40), "green": (40, 220, 60), "blue": (50, 70, 240), "white": (230, 230, 230)}
TONES = {"red": 250.0, "green": 600.0, "blue": 1300.0, "white": 2800.0}
SIDE, FPS, RATE, SECONDS = 32, 8, 8000, 3.0
PER_VIDEO = 2
MOVE = 12
"""Pixels that a square moves in a clip."""
LOOKS = {"hue": 0.05, "saturation": 0.3, "grey": 0.0}
"""Settings of `colour` that leave alone what the squares are known by: their colours."""


class MemoryClips:
    """What a `Dataset` of clips offers, of clips in memory: `videos` videos, each a source of its own, with two clips
    each."""

    def __init__(
        self, videos: int = 24, seed: int = 0, labels: bool = True, boxes: bool = True, move: int = MOVE
    ) -> None:
        numbers = np.random.default_rng(seed)
        self.classes = list(COLOURS) if labels else []
        made = [square(numbers, video % len(COLOURS), move) for video in range(videos) for _ in range(PER_VIDEO)]
        count = len(made)
        self.frames, self.sound = (np.stack([clip[part] for clip in made]) for part in (0, 1))
        video = np.repeat(np.arange(videos), PER_VIDEO)
        known = np.stack([clip[3] for clip in made])
        known = (known if boxes else np.full_like(known, np.nan)).astype(np.float32)
        tested = np.arange(videos) // len(COLOURS) % 3 == 2
        self.columns: dict[str, np.ndarray] = {
            "row": np.arange(count),
            "path": np.array([f"{one}.mp4" for one in video]),
            "split": np.where(tested[video], "test", "train"),
            "label": np.array([clip[2] if labels else -1 for clip in made]),
            "group": np.array([f"{one:03d}" for one in video]),
            "number": video,
            "start": np.tile(np.arange(PER_VIDEO) * SECONDS, videos),
            "audible": np.ones(count, dtype=bool),
            "duration": np.full(count, 6.0),
            "size": numbers.integers(1000, 2000, videos)[video],
            "fps": np.full(count, float(FPS)),
            "rate": np.full(count, RATE),
            **{edge: known[:, place] for place, edge in enumerate(("x0", "y0", "x1", "y1"))},
        }

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def format(self) -> ClipFormat:
        shares = self.frames[self.columns["split"] == "train"] / 255
        mean, std = shares.mean(axis=(0, 1, 3, 4)), shares.std(axis=(0, 1, 3, 4))
        return ClipFormat(self.frames.shape[1], SIDE, FPS, RATE, SECONDS, tuple(mean.tolist()), tuple(std.tolist()))

    def column(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        return self.columns[name] if rows is None else self.columns[name][rows]

    @property
    def labels(self) -> np.ndarray:
        return self.columns["label"]

    @property
    def groups(self) -> np.ndarray:
        return np.unique(self.columns["group"], return_inverse=True)[1]

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.columns["split"] == split)

    def labelled_rows(self, split: str) -> np.ndarray:
        rows = self.rows(split)
        return rows[self.labels[rows] >= 0]

    @property
    def pretraining_rows(self) -> np.ndarray:
        return self.rows("train")

    @property
    def labelled(self) -> bool:
        return all((self.labels[self.rows(split)] >= 0).any() for split in ("train", "test"))

    def write(self, folder: Path, shard: int = 20) -> Path:
        """The same clips on the disk as the stage `clips` writes them, in several shards."""
        folder.mkdir(parents=True)
        rows = np.arange(len(self))
        for number in range(-(-len(self) // shard)):
            part = slice(number * shard, (number + 1) * shard)
            np.save(folder / f"frames-{number:05d}.npy", self.frames[part])
            np.save(folder / f"sound-{number:05d}.npy", self.sound[part])
        table = pa.table({"shard": rows // shard, "index": rows % shard, **self.columns})
        pq.write_table(table, folder / "manifest.parquet")
        write_json(folder / "dataset.json", described(self.format, self.classes))
        return folder

    def read(self, rows: np.ndarray, frames: torch.Tensor | None = None) -> Fields:
        rows = np.asarray(rows)
        pictures, sound, groups = (torch.from_numpy(part[rows]) for part in (self.frames, self.sound, self.groups))
        if frames is None:
            return Fields(frames=pictures, sound=sound, groups=groups)
        chosen = pictures[torch.arange(len(rows))[:, None], frames]
        return Fields(frames=chosen, sound=sound, groups=groups, frame_numbers=frames)


def square(
    numbers: np.random.Generator, label: int, move: int = MOVE
) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
    """Frames, sound, label and box of one clip."""
    name = list(COLOURS)[label]
    count, samples, size = round(SECONDS * FPS), round(SECONDS * RATE), 9
    onsets = np.sort(numbers.uniform(0, SECONDS, 4))
    times = np.arange(samples) / RATE

    def loudness(at: np.ndarray) -> np.ndarray:
        since = at[:, None] - onsets
        return np.where(since >= 0, np.exp(-np.clip(since, 0, None) / 0.15), 0).max(axis=1)

    tone = np.sin(2 * np.pi * TONES[name] * numbers.uniform(0.95, 1.05) * times + numbers.uniform(0, 6))
    sound = 0.4 * tone * (0.1 + loudness(times)) + 0.003 * numbers.standard_normal(samples)

    frames = np.empty((count, 3, SIDE, SIDE), np.float64)
    frames[:] = numbers.integers(40, 90, (3, 1, 1)) + 8 * numbers.standard_normal((1, SIDE, SIDE))
    left, top = numbers.integers(0, SIDE - size - move, 2)
    way = numbers.choice([-1, 1])
    bright = 0.55 + 0.45 * loudness(np.arange(count) / FPS)
    for frame in range(count):
        moved = round(move * (frame if way > 0 else count - 1 - frame) / (count - 1))
        colour = np.array(COLOURS[name])[:, None, None] * bright[frame]
        frames[frame, :, top : top + size, left + moved : left + moved + size] = colour
    box = np.array([left, top, left + move + size, top + size]) / SIDE
    pcm = (sound * 32767).clip(-32768, 32767).astype(np.int16)
    return frames.clip(0, 255).astype(np.uint8), pcm, label, box
