"""The classes of all pixels of a folder's images, as a folder of masks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from sslflow import __version__
from sslflow.data.truth import IGNORED
from sslflow.ingest.images.examine import Examined
from sslflow.ingest.records import escape, unescape
from sslflow.runtime.device import place
from sslflow.runtime.files import write_json
from sslflow.runtime.folders import replacing_folder
from sslflow.use.back import cut_in_words
from sslflow.use.coco import coco, regions, write_coco
from sslflow.use.folder import Done, Made, Task, refuse, worked_through
from sslflow.use.masks import as_png, palette, write_classes
from sslflow.use.models import ImageSegmenter
from sslflow.use.parts import KEY

MASKS, CLASSES, ABOUT = "masks", "classes.csv", "about.json"
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
    _refuse(folder, out, force)
    place(model, device, "channels_last")
    about: dict[str, Any] = {**model.described(), "folder": str(folder.resolve()), "batch": batch}
    about |= {"device": device.type, "sslflow": __version__}
    schema = pa.schema(COLUMNS, {KEY: json.dumps(about, sort_keys=True)})
    colours = palette()

    def columns(items: list[Examined]) -> dict[str, Any]:
        pictures = [item.decoded for item in items]
        return {
            "width": [one.width for one in pictures],
            "height": [one.height for one in pictures],
            "mask": [as_png(mask, colours) for mask in model.masks(pictures)],
        }

    task = Task("segment", folder, out, model.images, schema, columns)
    with worked_through(task, tell, batch=batch, workers=workers) as made:
        with replacing_folder(out) as whole:
            images = list(_unpacked(made, whole / MASKS, tell))
            made.tell_rejected(out.with_name(f"{out.name}.quarantine.csv"), tell)
            write_classes(whole / CLASSES, model.classes, colours)
            write_json(whole / ABOUT, {**about, "unseen": IGNORED})
            if as_coco:
                found = regions(whole / MASKS, images, len(model.classes))
                write_coco(whole / "masks.json", coco(images, found, enumerate(model.classes), about))
        said = cut_in_words([(one["width"], one["height"]) for one in images], model.images)
        if said:
            tell(f"warning: {said}; those pixels are {IGNORED} in the masks")
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


def _unpacked(made: Made, masks: Path, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Write each mask to a file; of each image path, width, height, and that file's name."""
    paths = list(made.names())
    names = Counter(map(_without_ending, paths))
    if several := [name for name, count in names.items() if count > 1]:
        told = f"{escape(several[0])} with several endings, whose masks have the whole names"
        tell(f"warning: there are {len(several)} names such as {told}, ending and all, before .png")
    names.update(map(unescape, paths))  # one image's short name may be another's whole one
    for table in made.tables():
        for row in table.to_pylist():
            short = _without_ending(row["path"])
            file = f"{short if names[short] == 1 else unescape(row['path'])}.png"
            place = masks / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(row.pop("mask"))
            yield {**row, "mask": file}


def _without_ending(path: str) -> str:
    return str(Path(unescape(path)).with_suffix(""))
