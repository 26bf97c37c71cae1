"""A small prepared data set of squares and bars on grey, with their boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat, described
from sslflow.data.splits import NO_LABEL, TEST, TRAIN
from sslflow.data.truth import Annotated, Things, truth_facts, write_truth
from sslflow.ingest.images.prepare import COLUMNS
from sslflow.ingest.shards import ShardWriter
from sslflow.runtime.files import write_json

SIDE = 32
CLASSES = ("square", "bar")
COLOURS = np.array([[230, 20, 20], [20, 20, 230]], np.uint8)[..., None, None]
NOTHING = Things(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_))


def drawn(numbers: np.random.Generator) -> tuple[np.ndarray, Things]:
    """A red square and a blue bar somewhere, one above the other, uint8 `(3, SIDE, SIDE)`."""
    image = numbers.integers(110, 140, (3, SIDE, SIDE)).astype(np.uint8)
    boxes = []
    for label, (width, height) in enumerate(((10, 10), (14, 6))):
        left, top = int(numbers.integers(0, SIDE - width)), int(numbers.integers(0, 16 - height)) + 16 * label
        image[:, top : top + height, left : left + width] = COLOURS[label]
        boxes.append((left, top, left + width, top + height))
    return image, Things(np.array(boxes, np.float32), np.arange(2), np.zeros(2, np.bool_))


def prepared(
    folder: Path,
    train: int,
    test: int,
    change: Callable[[int, str, Things], Things | None] = lambda number, split, things: things,
    classes: tuple[str, ...] = CLASSES,
) -> Dataset:
    """Prepared images in the folder; `change` says what is known of one, by its number within its split; None: nothing
    is."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, known = np.random.default_rng(0), {}
    size = {"width": SIDE, "height": SIDE, "sha256": "", "pixels": ""}
    with ShardWriter(folder, {"images": ("|u1", (3, SIDE, SIDE))}, COLUMNS, measured="images") as writer:
        for split, count in ((TRAIN, train), (TEST, test)):
            for number in range(count):
                image, things = drawn(numbers)
                name = f"{split}-{number}"
                row = writer.add(
                    {"images": image}, {"path": name, "split": split, "label": NO_LABEL, "group": name, **size}
                )
                if (said := change(number, split, things)) is not None:
                    known[row] = Annotated(things=said)
    form = ImageFormat(3, SIDE, *writer.mean_and_std(TRAIN))
    write_truth(folder, known)
    facts = {"truth": truth_facts((), classes), "read": {"fit": "crop", "background": "white", "sixteen_bit": "full"}}
    write_json(folder / "dataset.json", {**described(form, ()), **facts})
    return Dataset(folder)
