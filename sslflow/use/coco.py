"""What was found in images, as COCO's JSON has it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from sslflow.runtime.files import write_text

Rows = Sequence[Mapping[str, Any]]
"""Of each image `path`, `width` and `height`, and more."""


def coco(
    images: Rows, found: Iterable[Mapping[str, Any]], classes: Iterable[tuple[int, str]], about: Mapping[str, Any]
) -> dict[str, Any]:
    """The file's content: of the `images`, which are numbered from 1, of what was `found` in them, and of the numbers
    and names of the classes. It loads as truth does; its `annotations` alone are what `loadRes` takes."""
    return {
        "info": dict(about),
        "images": [
            {"id": number, "file_name": one["path"], "width": one["width"], "height": one["height"]}
            for number, one in enumerate(images, 1)
        ],
        "annotations": [{"id": number, "iscrowd": 0, **one} for number, one in enumerate(found, 1)],
        "categories": [{"id": number, "name": name} for number, name in classes],
    }


def write_coco(file: Path, content: Mapping[str, Any]) -> None:
    """Replace `file`, all of it in one line."""
    write_text(file, json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n")


def boxes(images: Rows) -> Iterator[dict[str, Any]]:
    """An annotation for each of the `boxes` of the images, left, top, right, bottom, with one of its `labels` and one
    of its `scores`; the category of a label is one more."""
    for number, one in enumerate(images, 1):
        for box, label, score in zip(one["boxes"], one["labels"], one["scores"], strict=True):
            left, top, right, bottom = box
            width, height = right - left, bottom - top
            yield {
                "image_id": number,
                "category_id": label + 1,
                "bbox": [round(value, 3) for value in (left, top, width, height)],
                "area": round(width * height, 3),
                "score": round(score, 5),
            }


def regions(masks: Path, images: Rows, classes: int) -> Iterator[dict[str, Any]]:
    """An annotation, run-length encoded, for each class that a pixel of an image's `mask` is of; its category is the
    class's number."""
    for number, one in enumerate(images, 1):
        with Image.open(masks / one["mask"]) as image:
            mask = np.asarray(image)
        for label in np.unique(mask[mask < classes]).tolist():
            encoded = rle.encode(np.asfortranarray(mask == label, np.uint8))
            counts: Any = encoded["counts"]  # bytes, whatever is annotated
            yield {
                "image_id": number,
                "category_id": label,
                "segmentation": {"size": encoded["size"], "counts": counts.decode("ascii")},
                "bbox": rle.toBbox(encoded).tolist(),
                "area": int(rle.area(encoded)),
            }
