"""Images with masks and boxes, as COCO, as Pascal VOC and as masks, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from data_fixtures import encoded, write
from PIL import Image
from pycocotools import mask as coco

Box = tuple[int, int, int, int]
NAMES = ("cat", "dog", "emu")
SIZE = (24, 20)


def picture(number: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Noise, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def things(number: int) -> list[tuple[str, Box]]:
    """Two things that lie apart; none in each fifth image."""
    if number % 5 == 4:
        return []
    left = number % 4
    return [(NAMES[number % 3], (left, 2, left + 6, 9)), (NAMES[(number + 1) % 3], (12, 10, 20, 19))]


def mask_of(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Class of each pixel, 0 the background: ellipses in the boxes."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    for name, box in things(number):
        mask[ellipse(box, size)] = NAMES.index(name) + 1
    return mask


def ellipse(box: Box, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Bool `(height, width)`, touching all sides of the box."""
    left, top, right, bottom = box
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    across, down = (x - (left + right) / 2) / (right - left), (y - (top + bottom) / 2) / (bottom - top)
    return across**2 + down**2 <= 0.25


def entry(number: int, image: int, box: Iterable[float], category: int, **more: Any) -> dict[str, Any]:
    left, top, right, bottom = box
    where = [left, top, right - left, bottom - top]
    return {"id": number, "image_id": image, "category_id": category, "bbox": where, "iscrowd": 0} | more


def coco_of(numbers: Iterable[int]) -> dict[str, list[dict[str, Any]]]:
    """A file of COCO's of the images, shapes as compressed and as plain run lengths in turns."""
    images, annotations = [], []
    for number in numbers:
        images.append({"id": number, "file_name": f"{number:02}.png", "width": SIZE[0], "height": SIZE[1]})
        for name, box in things(number):
            shape: Any = coco.encode(np.asfortranarray(ellipse(box).astype(np.uint8)))
            shape["counts"] = shape["counts"].decode()
            if len(annotations) % 2:
                flat = ellipse(box).T.reshape(-1)
                ends = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
                shape["counts"] = [0] * bool(flat[0]) + np.diff(ends).tolist()
            annotations.append(entry(len(annotations), number, box, 10 - NAMES.index(name), segmentation=shape))
    categories = [{"id": 10 - number, "name": name} for number, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def images(folder: Path, numbers: Iterable[int]) -> Path:
    for number in numbers:
        write(folder / f"{number:02}.png", encoded(picture(number), "PNG"))
    return folder


def masks(folder: Path, numbers: Iterable[int]) -> Path:
    for number in numbers:
        write(folder / f"{number:02}.png", encoded(Image.fromarray(mask_of(number)), "PNG"))
    return folder


def voc(root: Path, numbers: Iterable[int]) -> Path:
    """Pictures, boxes and masks of the images."""
    images(root / "JPEGImages", numbers)
    masks(root / "SegmentationClass", numbers)
    for number in numbers:
        write(root / "Annotations" / f"{number:02}.xml", xml(things(number)).encode())
    return root


def xml(found: Iterable[tuple[str, Iterable[float]]], *, size: tuple[int, int] = SIZE, difficult: int = 0) -> str:
    objects = ""
    for name, (left, top, right, bottom) in found:
        edges = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
        box = "".join(f"<{edge}>{value}</{edge}>" for edge, value in edges.items())
        objects += f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation>{sides}{objects}</annotation>"


def saved(file: Path, content: Any) -> Path:
    return write(file, json.dumps(content).encode())
