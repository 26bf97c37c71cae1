"""The classes of all pixels of a folder's images, as a folder of masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from sslflow.data.annotated import IGNORED, as_png
from sslflow.ingest.images.examine import Examined
from sslflow.runtime.device import place
from sslflow.runtime.files import write_json
from sslflow.runtime.folders import replacing_folder
from sslflow.use.coco import coco, regions, write_coco
from sslflow.use.folder import Done, Task, about, refuse, schema_of, tell_cut_away, worked_through
from sslflow.use.masks import palette, write_classes
from sslflow.use.models import ImageSegmenter
from sslflow.use.pngs import ABOUT, bytes_of, refuse_place, unpacked

MASKS, CLASSES = "masks", "classes.csv"
COLUMNS = [("path", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("mask", pa.binary())]


def segment_folder(
    folder: Path,
    model: ImageSegmenter,
    out: Path,
    device: torch.device,
    tell: Callable[[str], None],
    *,
    as_coco: bool = False,
    force: bool = False,
    batch: int = 64,
    workers: int = 0,
) -> Done:
    """Write the folder `out`: `masks/` with a PNG of each image in `folder`, at any depth, as large as the image is
    when it is upright, whose values are numbers of classes, and `IGNORED` where the model sees nothing of it;
    `classes.csv`, `about.json`, and with `as_coco` `masks.json`. What can't be used stands, with its reason, beside it.

    Resumed as `embed_folder` is. With `force` an earlier such folder is replaced. Raises `ValueError` for a folder
    without an image that can be used, and for an `out` that is there or lies in `folder`.
    """
    refuse(folder, batch, workers)
    refuse_place(folder, out, force, "masks", "segment")
    place(model, device, "channels_last")
    known = about(model.described(), folder, batch, device)
    colours = palette()

    def columns(items: list[Examined]) -> dict[str, Any]:
        pictures = [item.decoded for item in items]
        return {
            "width": [one.width for one in pictures],
            "height": [one.height for one in pictures],
            "mask": [as_png(mask, colours) for mask in model.masks(pictures)],
        }

    schema, without = schema_of(COLUMNS, known), ", or make the images smaller"
    size = bytes_of(folder, model.images, lambda pictures: [as_png(mask, colours) for mask in model.masks(pictures)])
    task = Task("segment", folder, out, model.images, schema, columns, size, without)
    with worked_through(task, tell, batch=batch, workers=workers) as made:
        with replacing_folder(out) as whole:
            images = list(unpacked(made, "mask", whole / MASKS, tell))
            made.tell_rejected(out.with_name(f"{out.name}.quarantine.csv"), tell)
            write_classes(whole / CLASSES, model.classes, colours)
            write_json(whole / ABOUT, {**known, "unseen": IGNORED})
            if as_coco:
                found = regions(whole / MASKS, images, len(model.classes))
                write_coco(whole / "masks.json", coco(images, found, enumerate(model.classes), known))
        tell_cut_away(images, model.images, f"those pixels are {IGNORED} in the masks", tell)
        return made.done(tell)
