"""Where in its frames one run finds the source of a sound: maps over the frame, with the known box, if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from sslflow.audiovisual.maps import enlarged
from sslflow.drawing.embedded import Picture, image, picture
from sslflow.examination.clips.pointing import pointing
from sslflow.reporting.clips.moments import Heard, Moments
from sslflow.reporting.clips.sounds import Player, coloured
from sslflow.runtime.rng import permutation
from sslflow.runtime.tables import read_safetensors

EXAMPLES = 6
SIDE = 144
"""Pixels of a tile."""
HEARD = {"own": "its sound", "silence": "silence", "noise": "noise"}


@dataclass(frozen=True)
class Located:
    """A frame, and where in it a method finds the source of the sound."""

    tiles: list[tuple[str, Picture]]
    """The frame, and its maps with the sounds of `HEARD`, with their titles."""
    heard: Heard
    caption: str
    place: str


def located(file: Path, moments: Moments, seed: int, player: Player) -> list[Located]:
    """Some windows by chance, such with a known box before others. Raises `ValueError` for maps of other clips."""
    tensors = read_safetensors(file)
    clips, boxes = tensors["clip"], tensors["box"]
    if len(clips) and not 0 <= clips.min() <= clips.max() < len(moments.clips):
        raise ValueError(f"{file}: not about the clips in {moments.clips.folder}; run `dvc repro`")
    known = np.asarray(np.isfinite(boxes).all(axis=1))
    order = permutation(len(clips), seed, "report", "maps").numpy()
    chosen = order[np.argsort(~known[order], kind="stable")][:EXAMPLES]
    found = []
    for row in chosen.tolist():
        clip, start, box = int(clips[row]), float(tensors["start"][row]), boxes[row] if known[row] else None
        maps = {name: enlarged(torch.from_numpy(tensors[name][row : row + 1]), SIDE).numpy() for name in HEARD}
        small = image(moments.frame(clip, start)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        tiles = [("frame", picture(boxed(small, box), quality=88))]
        tiles += [(HEARD[name], picture(boxed(overlaid(small, one[0]), box), quality=88)) for name, one in maps.items()]
        words = moments.name(clip)
        if box is not None:
            share = pointing(maps["own"], box[None])[0]
            words += ": on it" if share == 1 else ": missed" if share == 0 else f": {100 * share:.0f} % on it"
        found.append(Located(tiles, moments.heard(clip, start, player, SIDE), words, moments.place(clip, start)))
    return found


def overlaid(frame: Image.Image, scores: np.ndarray) -> Image.Image:
    """The frame in grey under a map `(height, width)` in colours, from its least to its greatest value, whose place is
    marked; of a map that is the same everywhere, the frame in grey."""
    grey = np.asarray(frame.convert("L"), dtype=np.float64)[..., None]
    low, high = float(scores.min()), float(scores.max())
    if high <= low:
        return Image.fromarray(np.repeat(grey, 3, axis=2).astype(np.uint8))
    mixed = 0.6 * grey + 0.5 * coloured((scores - low) / (high - low))
    shown = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
    y, x = divmod(int(scores.argmax()), scores.shape[1])
    pen = ImageDraw.Draw(shown)
    for radius, ink, width in ((7, "black", 4), (6, "white", 2)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ink, width=width)
    return shown


def boxed(shown: Image.Image, box: np.ndarray | None) -> Image.Image:
    """A picture with a frame around the box x0, y0, x1, y1, in shares of its sides."""
    shown = shown.convert("RGB")
    if box is not None:
        edges = [float(np.clip(edge, 0, 1)) * (side - 1) for edge, side in zip(box, 2 * shown.size, strict=True)]
        pen = ImageDraw.Draw(shown)
        pen.rectangle(edges, outline="black", width=4)
        pen.rectangle(
            [edges[0] + 1, edges[1] + 1, max(edges[2], edges[0] + 2) - 1, max(edges[3], edges[1] + 2) - 1],
            outline="white",
            width=2,
        )
    return shown
