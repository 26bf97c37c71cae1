"""What is written of predicted classes of pixels or voxels: counts of each test image, some predictions, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sslflow.dense.masks.scores import Regions
from sslflow.runtime.about import about
from sslflow.runtime.files import replacing, write_json

COUNTS = pa.schema(
    [
        ("protocol", pa.string()),
        ("fraction", pa.float64()),
        ("row", pa.int64()),
        ("class", pa.int32()),
        ("intersection", pa.int64()),
        ("predicted", pa.int64()),
        ("actual", pa.int64()),
    ]
)
"""Pixels of each test image and each class that is there or was predicted, by its number; without ignored ones."""
MASKS = pa.schema([("protocol", pa.string()), ("fraction", pa.float64()), ("row", pa.int64()), ("mask", pa.binary())])
"""What was predicted for some of the test images: PNG files of class numbers."""


def counts_of(protocol: str, fraction: float, scores: Regions, rows: np.ndarray) -> list[dict[str, Any]]:
    """Lines of `COUNTS` for the scores on the test images of the rows."""
    image, number = np.nonzero(scores.predicted + scores.actual)
    three = (scores.intersection, scores.predicted, scores.actual)
    columns = zip(rows[image].tolist(), number.tolist(), *(one[image, number].tolist() for one in three), strict=True)
    return [dict(zip(COUNTS.names, (protocol, fraction, *values), strict=True)) for values in columns]


def confusion(protocol: str, fraction: float, scores: Regions) -> dict[str, Any]:
    """What the pixels of each class were taken for, and each class's IoU, None where there is none."""
    ious = [None if np.isnan(one) else one for one in scores.ious.tolist()]
    return {"protocol": protocol, "fraction": fraction, "pixels": scores.confusion.tolist(), "iou": ious}


def write_segmented(
    folder: Path,
    counts: Sequence[dict[str, Any]],
    masks: Sequence[dict[str, Any]],
    confusion: dict[str, Any],
    test: np.ndarray,
) -> None:
    """`counts.parquet`, `masks.parquet`, which say what test images they are about, and `confusion.json`."""
    for name, rows, schema in (("counts", counts, COUNTS), ("masks", masks, MASKS)):
        with replacing(folder / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=schema.with_metadata(about(test))), temporary)
    write_json(folder / "confusion.json", confusion)
