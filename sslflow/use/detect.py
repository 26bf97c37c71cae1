"""The things in a folder's images, as a COCO file of boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from sslflow.ingest.images.examine import Examined
from sslflow.runtime.device import place
from sslflow.use.coco import boxes, coco, write_coco
from sslflow.use.folder import Done, Task, about, refuse, schema_of, tell_cut_away, worked_through
from sslflow.use.models import ImageDetector

COLUMNS = [
    *(("path", pa.string()), ("width", pa.int32()), ("height", pa.int32())),
    *(
        ("boxes", pa.list_(pa.list_(pa.float64()))),
        ("labels", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float64())),
    ),
]


def detect_folder(
    folder: Path,
    model: ImageDetector,
    file: Path,
    device: torch.device,
    tell: Callable[[str], None],
    *,
    least: float = 0.3,
    force: bool = False,
    batch: int = 64,
    workers: int = 0,
) -> tuple[Done, int]:
    """Write the things in every image in `folder`, at any depth, whose score is `least` or more, to the COCO `file`;
    boxes are in pixels of the image as large as it is, and upright. What can't be used stands, with its reason, beside
    it: `detections.quarantine.csv`. What became of the images, and how many things there are.

    Resumed as `embed_folder` is. With `force` an earlier file is replaced. Raises `ValueError` for a folder without an
    image that can be used, and for a `file` that is there.
    """
    refuse(folder, batch, workers)
    if file.suffix != ".json" or file.is_dir():
        raise ValueError(f"{file}: what is written is JSON: give it a name that ends in .json")
    if file.exists() and not force:
        raise ValueError(f"{file} is there already: name another file with -o, or replace it with --force")
    if not 0 <= least <= 1:
        raise ValueError(f"--score: expected a number from 0 to 1, found {least:g}")
    place(model, device, "channels_last")
    known = {**about(model.described(), folder, batch, device), "least_score": least}

    def columns(items: list[Examined]) -> dict[str, Any]:
        pictures = [item.decoded for item in items]
        found = model.things(pictures, least)
        return {
            "width": [one.width for one in pictures],
            "height": [one.height for one in pictures],
            **{name: [getattr(one, name).tolist() for one in found] for name in ("boxes", "labels", "scores")},
        }

    task = Task("detect", folder, file, model.images, schema_of(COLUMNS, known), columns)
    with worked_through(task, tell, batch=batch, workers=workers) as made:
        images = [row for table in made.tables() for row in table.to_pylist()]
        made.tell_rejected(file.with_suffix(".quarantine.csv"), tell)
        found = list(boxes(images))
        write_coco(file, coco(images, found, enumerate(model.classes, 1), known))
        tell_cut_away(images, model.images, "nothing is found there", tell)
        return made.done(tell), len(found)
