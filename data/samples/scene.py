"""Small drawings over a coloured, drifting background: each jumps and swells where something happens, then settles, and
one of them glides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

SIDE, FPS = 128, 12
INSTRUMENT, OTHER = (44.0, 56.0), (24.0, 34.0)
"""Pixels of what sounds and of what only moves, shortest and longest."""
FINE = 2
"""Pixels of the canvas for each pixel of the frame, along either axis."""
DECAY = 0.12
"""Seconds in which a jump falls to 1/e: gone after 0.3 s, while it begins at once. So time has a direction."""
GLIDE = (50.0, 90.0)
"""Pixels from where a gliding thing is first to where it is last, shortest and longest."""


@dataclass(frozen=True)
class Thing:
    """A drawing, RGBA with the alpha premultiplied, how it lies in the frame (pixels, degrees), and when it jumps."""

    drawing: Image.Image
    onsets: Sequence[float]
    side: float
    swell: float
    jump: float
    angle: float
    sway: tuple[float, float, float]
    """Degrees, seconds for one period, phase."""
    centre: tuple[float, float] = (0.0, 0.0)
    glide: tuple[float, float] = (0.0, 0.0)
    """Pixels a second; it is at `centre` when time is 0."""

    @property
    def reach(self) -> float:
        """From the centre to about the edge of what it covers when it is largest."""
        return 0.5 * self.side * (1 + self.swell)

    def excitement(self, time: float) -> float:
        """1 at an onset, 0 long after the last one."""
        return max((np.exp((onset - time) / DECAY) for onset in self.onsets if onset <= time), default=0.0)

    def cover(self, time: float) -> tuple[tuple[slice, slice], np.ndarray]:
        """What it covers of the canvas at `time`: the rows and columns, and there premultiplied RGBA in [0, 1]."""
        lively, (degrees, period, phase) = self.excitement(time), self.sway
        turn = np.deg2rad(self.angle + degrees * np.sin(2 * np.pi * (time / period + phase)))
        scale = FINE * self.side * (1 + self.swell * lively) / max(self.drawing.size)
        back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / scale
        x, y = np.array(self.centre) + time * np.array(self.glide)
        here = FINE * np.array([x, y - self.jump * lively])
        reach = 0.5 * scale * np.hypot(*self.drawing.size) + 1
        left, top = np.floor(np.maximum(here - reach, 0)).astype(int)
        right, bottom = np.ceil(np.minimum(here + reach, FINE * SIDE)).astype(int)
        shift = np.array(self.drawing.size) / 2 + back @ ((left, top) - here)
        part = self.drawing.transform(
            (right - left, bottom - top),
            Image.Transform.AFFINE,
            [*back[0], shift[0], *back[1], shift[1]],
            Image.Resampling.BICUBIC,
        )
        return (slice(top, bottom), slice(left, right)), np.asarray(part, np.float32) / 255


def draw_thing(
    drawing: Image.Image, onsets: Sequence[float], sides: tuple[float, float], rng: np.random.Generator
) -> Thing:
    """`drawing` (RGBA) seen from elsewhere and cut to what it shows, perhaps mirrored, in other colours; everything
    else drawn too."""
    drawing = _seen_from_elsewhere(drawing, rng)
    drawing = drawing.crop(drawing.getchannel("A").getbbox())
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Thing(
        drawing=_recoloured(drawing, rng).convert("RGBa"),
        onsets=onsets,
        side=rng.uniform(*sides),
        swell=rng.uniform(0.15, 0.3),
        jump=rng.uniform(5, 10),
        angle=rng.uniform(-15, 15),
        sway=(rng.uniform(5, 12), rng.uniform(2, 4), rng.uniform()),
    )


def _seen_from_elsewhere(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Stretched and sheared about its middle, on a canvas large enough for what sticks out."""
    back = np.eye(2) + rng.uniform(-0.2, 0.2, (2, 2))
    size = 2 * np.array(drawing.size)
    shift = np.array(drawing.size) / 2 - back @ (size / 2)
    rows = [*back[0], shift[0], *back[1], shift[1]]
    return drawing.transform(tuple(size), Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)


def _recoloured(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    hue, saturation, value = (np.asarray(band, float) for band in drawing.convert("RGB").convert("HSV").split())
    bands = (
        (hue + rng.uniform(-25, 25)) % 256,
        np.clip(saturation * rng.uniform(0.75, 1.2), 0, 255),
        np.clip(value * rng.uniform(0.8, 1.1), 0, 255),
    )
    colours = Image.merge("HSV", [Image.fromarray(np.uint8(band)) for band in bands]).convert("RGB")
    colours.putalpha(drawing.getchannel("A"))
    return colours


def place(thing: Thing, rng: np.random.Generator) -> Thing:
    """Somewhere in the frame, with room for its jumps, more often near an edge than in the middle."""
    low, high = thing.reach, SIDE - thing.reach
    x, y = low + (high - low) * rng.beta(0.5, 0.5, size=2)
    return replace(thing, centre=(float(x), float(min(y + thing.jump, high))))


def gliding(thing: Thing, seconds: float, rng: np.random.Generator) -> Thing:
    """From one place in the frame to another within `seconds`."""
    while True:
        first, last = rng.uniform(thing.reach, SIDE - thing.reach, (2, 2))
        if GLIDE[0] <= np.hypot(*(last - first)) <= GLIDE[1]:
            x, y = (last - first) / seconds
            return replace(thing, centre=(float(first[0]), float(first[1])), glide=(float(x), float(y)))


def draw_background(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A surface larger than the canvas, and how far it drifts in a second (canvas pixels)."""
    side = FINE * 2 * SIDE
    spots = Image.fromarray(np.float32(rng.normal(size=(4, 4)))).resize((side, side), Image.Resampling.BICUBIC)
    surface = rng.uniform(5, 20) * np.asarray(spots)[..., None]
    colour = rng.uniform(90, 240, 3)
    angle, speed = rng.uniform(0, 2 * np.pi), FINE * rng.uniform(2, 7)
    return np.clip(surface + colour, 0, 255) / 255, speed * np.array([np.cos(angle), np.sin(angle)])


def film(things: Sequence[Thing], seconds: float, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each frame, uint8 `(SIDE, SIDE, 3)`, with where the first of `things` is in it, bool `(SIDE, SIDE)`."""
    surface, drift = draw_background(rng)
    middle = FINE * SIDE / 2
    for number in range(round(seconds * FPS)):
        time = (number + 0.5) / FPS  # the middle of the time for which the frame is shown
        x, y = np.round(middle + drift * (time - seconds / 2)).astype(int)
        canvas = surface[y : y + FINE * SIDE, x : x + FINE * SIDE].copy()
        seen = np.zeros((FINE * SIDE, FINE * SIDE, 1), np.float32)
        for thing in things[::-1]:  # the first is drawn last
            where, cover = thing.cover(time)
            canvas[where] = canvas[where] * (1 - cover[..., 3:]) + cover[..., :3]
        seen[where] = cover[..., 3:]
        yield np.uint8(np.clip(255 * _reduced(canvas), 0, 255).round()), _reduced(seen)[..., 0] > 0.5


def _reduced(canvas: np.ndarray) -> np.ndarray:
    return canvas.reshape(SIDE, FINE, SIDE, FINE, -1).mean((1, 3))
