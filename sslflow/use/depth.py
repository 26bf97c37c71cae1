"""How far away everything is in a folder's images, as a folder of depth maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sslflow.data.annotated import as_png
from sslflow.ingest.images.decode import Decoded
from sslflow.ingest.images.examine import Examined
from sslflow.runtime.device import place
from sslflow.runtime.files import write_json
from sslflow.runtime.folders import replacing_folder
from sslflow.use.folder import Done, Task, about, refuse, schema_of, tell_cut_away, worked_through
from sslflow.use.models import ImageEstimator
from sslflow.use.pngs import ABOUT, bytes_of, refuse_place, unpacked

MAPS = "depth"
SCALE = 0.001
MOST = 2**16 - 1
"""The largest value of a PNG of 16 bits."""
COLUMNS = [
    ("path", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("cut", pa.int64()),
    ("depth", pa.binary()),
]
"""`cut`: pixels that are further away than the PNG can say."""


def depth_folder(
    folder: Path,
    model: ImageEstimator,
    out: Path,
    device: torch.device,
    tell: Callable[[str], None],
    *,
    scale: float = SCALE,
    force: bool = False,
    batch: int = 64,
    workers: int = 0,
) -> Done:
    """Write the folder `out`: `depth/` with a PNG of 16 bits of each image in `folder`, at any depth, as large as the
    image is when it is upright, whose values are depth in steps of `scale` metres, 0 where the model sees nothing of
    it; and `about.json`. What can't be used stands, with its reason, beside it.

    Resumed as `embed_folder` is. With `force` an earlier such folder is replaced. Raises `ValueError` for a folder
    without an image that can be used, for an `out` that is there or lies in `folder`, and a scale that is none.
    """
    if not 0 < scale < float("inf"):
        raise ValueError(f"--scale: expected metres from one value to the next, more than 0, found {scale:g}")
    refuse(folder, batch, workers)
    refuse_place(folder, out, force, "depth maps", "depth")
    place(model, device, "channels_last")
    known = about({**model.described(), "depth_scale": scale, "unseen": 0}, folder, batch, device)

    def pngs(pictures: Sequence[Decoded]) -> list[tuple[int, bytes]]:
        return [stored(metres, scale) for metres in model.maps(pictures)]

    def columns(items: list[Examined]) -> dict[str, Any]:
        pictures = [item.decoded for item in items]
        made = pngs(pictures)
        return {
            "width": [one.width for one in pictures],
            "height": [one.height for one in pictures],
            "cut": [cut for cut, _ in made],
            "depth": [png for _, png in made],
        }

    size = bytes_of(folder, model.images, lambda pictures: [png for _, png in pngs(pictures)])
    without = ", or make the images smaller"
    task = Task("depth", folder, out, model.images, schema_of(COLUMNS, known), columns, size, without)
    with worked_through(task, tell, batch=batch, workers=workers) as made:
        with replacing_folder(out) as whole:
            images = list(unpacked(made, "depth", whole / MAPS, tell))
            made.tell_rejected(out.with_name(f"{out.name}.quarantine.csv"), tell)
            write_json(whole / ABOUT, known)
        tell_cut_away(images, model.images, "those pixels are 0 in the depth maps: not known", tell)
        if beyond := sum(one["cut"] > 0 for one in images):
            tell(
                f"warning: {beyond} of {len(images)} images have pixels beyond {MOST * scale:g} m, which became that: "
                f"--scale {10 * scale:g} reaches to {10 * MOST * scale:g} m"
            )
        return made.done(tell)


def stored(metres: np.ndarray, scale: float) -> tuple[int, bytes]:
    """A depth map `(height, width)` as a PNG of 16 bits in steps of `scale`: 0 where it is 0, and else 1 at least; how
    many pixels are further away than it can say."""
    steps = np.round(metres / np.float64(scale))
    values = np.where(metres > 0, steps.clip(1, MOST), 0).astype(np.uint16)
    return int((steps > MOST).sum()), as_png(values)
