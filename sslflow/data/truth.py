"""Where things are: masks and boxes of prepared images, as far as these have been annotated."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from sslflow.data.annotated import as_png
from sslflow.data.fields import Fields
from sslflow.runtime.files import reading, replacing

FILE = "truth.parquet"
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("mask", pa.binary()),
        ("boxes", pa.list_(pa.float32())),
        ("labels", pa.list_(pa.int32())),
        ("ignored", pa.list_(pa.bool_())),
    ]
)


@dataclass(frozen=True)
class Things:
    """The things in one image: nothing, where there are none."""

    boxes: np.ndarray
    """float32 `(k, 4)`: left, top, right, bottom, in pixels of the prepared image, whose first pixel is from 0 to 1."""
    labels: np.ndarray
    """int64 `(k,)`: indices into the classes of things."""
    ignored: np.ndarray
    """bool `(k,)`: neither found nor missed: crowds, what a detector may leave out, what was mostly cut away."""


@dataclass(frozen=True)
class Annotated:
    """What is known of one prepared image."""

    mask: np.ndarray | bytes | None = None
    """uint8 `(size, size)`, of a volume `(side, side * side)`, or a PNG file of it: indices into the classes of pixels,
    or `IGNORED`; None: no pixel is known."""
    things: Things | None = None
    """None: it isn't known which things are there."""


class Truth:
    """What `write_truth` wrote into the folder of a prepared data set. In memory are masks as PNG files."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._file = folder / FILE
        self.pixel_classes: list[str] = list(facts["pixel_classes"])
        """Names of what pixels may be of; often the first is the background. Empty: there are no masks."""
        self.thing_classes: list[str] = list(facts["thing_classes"])
        """Names of what things may be. Empty: there are no boxes."""
        self._shape: tuple[int, ...] = tuple(facts.get("shape", ()))
        """Of a mask, where it is another than its file's: a volume's slices stand side by side there."""

    def rows(self, kind: str) -> np.ndarray:
        """Rows of the images that have been annotated, in order: `kind` is `mask` or `boxes`."""
        known = self._table[kind].is_valid().to_numpy(zero_copy_only=False)
        return self._numbers[known]

    def masks(self, rows: np.ndarray) -> Tensor:
        """Masks of the rows given, uint8 `(n, size, size)`, of volumes `(n, side, side, side)`. Raises `KeyError` for
        an image without."""
        content = self._table["mask"].take(pa.array(self._places(rows))).to_pylist()
        if None in content:
            raise KeyError(f"no mask of row {rows[content.index(None)]}")
        decoded = [np.asarray(Image.open(io.BytesIO(one))) for one in content]
        if self._shape:
            decoded = [one.reshape(self._shape) for one in decoded]
        return torch.from_numpy(np.stack(decoded)) if decoded else torch.empty(0, 0, 0, dtype=torch.uint8)

    def things(self, rows: np.ndarray) -> list[Things]:
        """The things in the images of the rows given. Raises `KeyError` for an image of which they aren't known."""
        table = self._table.take(pa.array(self._places(rows)))
        if table["boxes"].null_count:
            raise KeyError(f"no things of row {rows[table['boxes'].to_pylist().index(None)]}")
        found = zip(*(table[name].to_pylist() for name in ("boxes", "labels", "ignored")), strict=True)
        return [
            Things(
                np.asarray(boxes, np.float32).reshape(-1, 4),
                np.asarray(labels, np.int64),
                np.asarray(ignored, np.bool_),
            )
            for boxes, labels, ignored in found
        ]

    def boxes(self, rows: np.ndarray) -> Fields:
        """The same as tensors of as many places as the image with the most things has: `boxes`, float32 `(n, most,
        4)`, `labels`, int64 `(n, most)`, −1 where there is no thing, and `ignored`, bool `(n, most)`."""
        things = self.things(rows)
        most = max((len(one.labels) for one in things), default=0)
        boxes, labels = torch.zeros(len(things), most, 4), torch.full((len(things), most), -1)
        ignored = torch.zeros(len(things), most, dtype=torch.bool)
        for i, one in enumerate(things):
            count = len(one.labels)
            boxes[i, :count], labels[i, :count] = torch.from_numpy(one.boxes), torch.from_numpy(one.labels)
            ignored[i, :count] = torch.from_numpy(one.ignored)
        return Fields(boxes=boxes, labels=labels, ignored=ignored)

    @cached_property
    def _table(self) -> pa.Table:
        with reading(self._file):
            return pq.read_table(self._file, schema=SCHEMA).combine_chunks()

    @cached_property
    def _numbers(self) -> np.ndarray:
        return self._table["row"].to_numpy()

    def _places(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        places = np.searchsorted(self._numbers, rows)
        found = places < len(self._numbers)
        found[found] = self._numbers[places[found]] == rows[found]
        if not found.all():
            raise KeyError(f"row {rows[~found][0]} has not been annotated")
        return places


def write_truth(folder: Path, annotated: Mapping[int, Annotated]) -> None:
    """Write what is known of prepared images, by row, into their folder."""
    rows = sorted(annotated)
    things, masks = [annotated[row].things for row in rows], [annotated[row].mask for row in rows]
    table = pa.table(
        {
            "row": rows,
            "mask": [as_png(mask) if isinstance(mask, np.ndarray) else mask for mask in masks],
            "boxes": [None if one is None else one.boxes.reshape(-1).tolist() for one in things],
            "labels": [None if one is None else one.labels.tolist() for one in things],
            "ignored": [None if one is None else one.ignored.tolist() for one in things],
        },
        schema=SCHEMA,
    )
    with replacing(folder / FILE) as temporary:
        pq.write_table(table, temporary)


def truth_facts(pixel_classes: Sequence[str], thing_classes: Sequence[str]) -> dict[str, list[str]]:
    """What `dataset.json` says of it, under `truth`."""
    return {"pixel_classes": list(pixel_classes), "thing_classes": list(thing_classes)}
