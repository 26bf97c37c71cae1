"""A moment of a clip, to look at and to listen to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.drawing.embedded import Picture, image, picture
from sslflow.reporting.clips.sounds import Player, spectrogram

WIDTH = 144
"""Pixels: of a frame, or of several side by side, and of a moment's spectrogram."""
COLUMNS = 3
"""Of frames, where a moment has several."""
STRIP = 12
"""Frames of a whole clip."""


@dataclass(frozen=True)
class Heard:
    """A sound: its spectrogram, and where there is room a URL to play it; no picture where there is no sound."""

    picture: Picture | None
    url: str


class Moments:
    """Windows of clips: each as long as the method's, with as many frames as the method sees of it."""

    def __init__(self, clips: Dataset[ClipFormat], window: float, frames: int) -> None:
        self.clips, self.window, self.frames = clips, min(window, clips.format.seconds), frames
        self._read = lru_cache(maxsize=4)(self._decoded)

    def _decoded(self, clip: int) -> tuple[np.ndarray, np.ndarray]:
        fields = self.clips.read(np.array([clip]))
        return fields["frames"][0].numpy(), fields["sound"][0].numpy()

    def _of(self, column: str, clip: int) -> Any:
        return self.clips.column(column, np.array([clip])).item()

    def frame(self, clip: int, start: float) -> np.ndarray:
        """The frame in the middle of the window that begins at `start`, uint8 `(3, side, side)`."""
        return self._frames(clip, [start + self.window / 2])[0]

    def seen(self, clip: int, start: float) -> Picture:
        """What the method sees of the window, in reading order."""
        if self.frames < 2:
            return picture(image(self.frame(clip, start)).resize((WIDTH, WIDTH), Image.Resampling.BICUBIC), quality=85)
        times = [start + (number + 0.5) / self.frames * self.window for number in range(self.frames)]
        return self._sheet(self._frames(clip, times), COLUMNS, WIDTH // COLUMNS)

    def heard(self, clip: int, start: float, player: Player, height: int = WIDTH // 2) -> Heard:
        """The window's sound."""
        first = round(start * self.clips.format.rate)
        samples = self._read(clip)[1][first : first + round(self.window * self.clips.format.rate)]
        return self._heard(clip, samples, player, WIDTH, height)

    def strip(self, clip: int, count: int = STRIP, columns: int = STRIP) -> Picture:
        """Frames of the whole clip, evenly spread."""
        seconds = self.clips.format.seconds
        count = min(count, self.clips.format.frames)
        frames = self._frames(clip, [(number + 0.5) / count * seconds for number in range(count)])
        return self._sheet(frames, min(columns, count), 64 if columns >= STRIP else WIDTH // columns)

    def whole(self, clip: int, player: Player, width: int = STRIP * 64, height: int = 96) -> Heard:
        """All of the clip's sound."""
        return self._heard(clip, self._read(clip)[1], player, width, height)

    def name(self, clip: int) -> str:
        """The clip's class, or what its file is called where it has none."""
        label = int(self.clips.labels[clip])
        return self.clips.classes[label] if label >= 0 else PurePosixPath(self._of("path", clip)).stem

    def place(self, clip: int, start: float = 0.0) -> str:
        """Where the moment is: file, and second in it."""
        return f"{self._of('path', clip)} at {self._of('start', clip) + start:.1f} s"

    def _heard(self, clip: int, samples: np.ndarray, player: Player, width: int, height: int) -> Heard:
        if not self._of("audible", clip) or not len(samples):
            return Heard(None, "")
        rate = self.clips.format.rate
        return Heard(spectrogram(samples, rate, width, height), player.url(samples, rate))

    def _frames(self, clip: int, times: list[float]) -> np.ndarray:
        numbers = np.rint(np.array(times) * self.clips.format.fps).astype(int)
        return self._read(clip)[0][numbers.clip(0, self.clips.format.frames - 1)]

    def _sheet(self, frames: np.ndarray, columns: int, side: int) -> Picture:
        canvas = Image.new("RGB", (columns * side, -(-len(frames) // columns) * side))
        for number, pixels in enumerate(frames):
            small = image(pixels).resize((side, side), Image.Resampling.BICUBIC)
            canvas.paste(small, (number % columns * side, number // columns * side))
        return picture(canvas, quality=80)
