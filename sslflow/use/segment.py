"""The classes of all pixels of a folder's images, as a folder of masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from sslflow.data.annotated import IGNORED, as_png
from sslflow.ingest.images import folders
from sslflow.ingest.images.examine import Examined, Work, examine
from sslflow.ingest.records import Record, escape, unescape
from sslflow.runtime.device import place
from sslflow.runtime.files import write_json
from sslflow.runtime.folders import replacing_folder
from sslflow.use.coco import coco, regions, write_coco
from sslflow.use.folder import Done, Made, Task, about, refuse, schema_of, tell_cut_away, worked_through
from sslflow.use.masks import palette, write_classes
from sslflow.use.models import ImageSegmenter

MASKS, CLASSES, ABOUT = "masks", "classes.csv", "about.json"
COLUMNS = [("path", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("mask", pa.binary())]


FIRST, SAMPLE = 4096, 8
"""Images that are looked at, and how many of them, about, say how much room masks take."""


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
    _refuse(folder, out, force)
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
    task = Task("segment", folder, out, model.images, schema, columns, _mask_bytes(folder, model), without)
    with worked_through(task, tell, batch=batch, workers=workers) as made:
        with replacing_folder(out) as whole:
            images = list(_unpacked(made, whole / MASKS, tell))
            made.tell_rejected(out.with_name(f"{out.name}.quarantine.csv"), tell)
            write_classes(whole / CLASSES, model.classes, colours)
            write_json(whole / ABOUT, {**known, "unseen": IGNORED})
            if as_coco:
                found = regions(whole / MASKS, images, len(model.classes))
                write_coco(whole / "masks.json", coco(images, found, enumerate(model.classes), known))
        tell_cut_away(images, model.images, f"those pixels are {IGNORED} in the masks", tell)
        return made.done(tell)


def _refuse(folder: Path, out: Path, force: bool) -> None:
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out} lies in {folder}: the next time its masks would be images; name another place with -o")
    if not out.exists():
        return
    if not out.is_dir() or not (out / ABOUT).is_file():
        raise ValueError(f"{out} is there already, and no masks of `sslflow segment`: name another folder with -o")
    if not force:
        raise ValueError(f"{out} is there already: name another folder with -o, or replace it with --force")


def _mask_bytes(folder: Path, model: ImageSegmenter) -> int:
    """What a mask takes on the disk, as some of the first images have it."""
    records = [item for item in islice(folders.images(folder), FIRST) if isinstance(item, Record)]
    seen = examine(records[:: max(len(records) // SAMPLE, SAMPLE)], Work(model.images.decoder))
    pictures = [item.decoded for item in seen if isinstance(item, Examined)]
    sizes = [len(as_png(mask, palette())) for mask in model.masks(pictures)] if pictures else [0]
    return sum(sizes) // len(sizes)


def _unpacked(made: Made, masks: Path, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Write each mask to a file; of each image path, width, height, and that file's name."""
    paths = list(made.names())
    names = Counter(_without_ending(path).casefold() for path in paths)  # many disks take a and A for one
    if several := [name for name, count in names.items() if count > 1]:
        told = f"{escape(several[0])} with several endings, whose masks have the whole names"
        tell(f"warning: there are {len(several)} names such as {told}, ending and all, before .png")
    names.update(unescape(path).casefold() for path in paths)  # one image's short name may be another's whole one
    for table in made.tables():
        for row in table.to_pylist():
            short = _without_ending(row["path"])
            file = f"{short if names[short.casefold()] == 1 else unescape(row['path'])}.png"
            place = masks / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(row.pop("mask"))
            yield {**row, "mask": file}


def _without_ending(path: str) -> str:
    return str(Path(unescape(path)).with_suffix(""))
