"""The images of a table of features that are most like others, by the encoder that made it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from sslflow.drawing.contact_sheet import contact_sheet
from sslflow.ingest.images.decode import decode
from sslflow.ingest.images.files import Refused
from sslflow.ingest.records import unescape
from sslflow.runtime.device import place
from sslflow.runtime.files import reading, replacing
from sslflow.use.encoder import ImageEncoder, open_encoder
from sslflow.use.parts import KEY

ROWS = 4096
"""Of the table that are in memory at a time."""
DRAWN = 12
"""Neighbours of each image on a contact sheet, at most."""
SIDE = 96
"""Pixels of an image on it."""


@dataclass(frozen=True)
class Hit:
    """An image of the table, by its path there, and its cosine similarity."""

    score: float
    path: str


def facts_of(table: Path) -> dict[str, Any]:
    """What `embed` wrote down about its features. Raises `ValueError` for a file of anything else."""
    if not table.is_file():
        raise ValueError(f"{table}: there is no such table; `sslflow embed` makes one")
    with reading(table):
        metadata = pq.read_schema(table).metadata or {}
    if KEY not in metadata:
        raise ValueError(f"{table}: not a table of `sslflow embed` (its metadata lack '{KEY.decode()}')")
    return json.loads(metadata[KEY])


def encoder_of(table: Path, name: str = "") -> ImageEncoder:
    """The encoder that made the features of a table, `name`: where it is now. Raises `ValueError` where it has gone or
    changed."""
    facts = facts_of(table)
    images = facts["images"]
    sixteen_bit = images["sixteen_bit"]
    encoder = open_encoder(
        name or facts["encoder"],
        side=facts["asked_side"],
        network=facts["asked_network"],
        sixteen_bit=tuple(sixteen_bit) if isinstance(sixteen_bit, list) else sixteen_bit,
    )
    if encoder.sha256 != facts["sha256"]:
        raise ValueError(
            f"{encoder.name} isn't the encoder that made {table}: its weights have changed since; make the table anew "
            "with `sslflow embed`, or name the former file with --encoder"
        )
    return encoder


def search(
    images: Sequence[Path], table: Path, encoder: ImageEncoder, device: torch.device, top: int = 10
) -> list[list[Hit]]:
    """For each image the `top` rows of the table that are most similar, best first, equals in the table's order. No
    more than some thousand rows are in memory. Raises `ValueError` for an image or a table that can't be used."""
    if top < 1:
        raise ValueError(f"--top: expected 1 or more, found {top}")
    place(encoder, device, "contiguous")
    asked = _directions(encoder.embed(images).numpy())
    scores, rows = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    seen = 0
    with reading(table):
        content = pq.ParquetFile(table)
        for batch in content.iter_batches(ROWS, columns=["features"]):
            column = batch.column(0)
            features = column.flatten().to_numpy().reshape(len(column), -1)
            scores = np.concatenate([scores, asked @ _directions(features).T], axis=1)
            numbers = np.broadcast_to(np.arange(seen, seen + len(column)), (len(asked), len(column)))
            rows = np.concatenate([rows, numbers], axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
            seen += len(column)
        paths = _paths(content, rows)
    return [
        [Hit(float(score), paths[row]) for score, row in zip(*found, strict=True)]
        for found in zip(scores.tolist(), rows.tolist(), strict=True)
    ]


def _directions(features: np.ndarray) -> np.ndarray:
    """Of length 1; what has none stays 0."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _paths(content: pq.ParquetFile, rows: np.ndarray) -> dict[int, str]:
    """The paths of rows of the table."""
    wanted, found, seen = np.unique(rows), {}, 0
    for batch in content.iter_batches(ROWS, columns=["path"]):
        here = wanted[(wanted >= seen) & (wanted < seen + len(batch))]
        found |= dict(zip(here.tolist(), batch.column(0).take(here - seen).to_pylist(), strict=True))
        seen += len(batch)
    return found


def write_sheet(
    file: Path, asked: Sequence[Path | str], found: Sequence[Sequence[Hit]], folder: Path, tell: Callable[[str], None]
) -> None:
    """A contact sheet as PNG: a row for each image that was asked for, the image first, or each text; then what was
    found, which lies in `folder`; what can't be read any more is grey, and a line says so."""
    shown = [list(hits[:DRAWN]) for hits in found]
    if any(len(hits) > DRAWN for hits in found):
        tell(f"{file}: drawn are the first {DRAWN} of each")
    first = int(isinstance(asked[0], Path))
    across = first + max(len(hits) for hits in shown)
    cells = []
    for one, hits in zip(asked, shown, strict=True):
        cells += [thumbnail(one, tell)] if isinstance(one, Path) else []
        cells += [thumbnail(folder / unescape(hit.path), tell) for hit in hits]
    scores = (
        [f"{hit.score:.3f}" for hit in shown[0]] if len(shown) == 1 else [str(n + 1) for n in range(across - first)]
    )
    sheet = contact_sheet(
        np.stack(cells),
        columns=across,
        row_labels=[(one.name if isinstance(one, Path) else one)[:24] for one in asked],
        column_labels=[*[""] * first, *scores],
    )
    with replacing(file) as temporary:
        sheet.save(temporary, format="PNG")


def thumbnail(file: Path, tell: Callable[[str], None]) -> np.ndarray:
    """An image as it stands on a contact sheet, uint8 `(3, SIDE, SIDE)`; grey, with a line, where it can't be read."""
    try:
        return decode(file, SIDE, 3, fit="pad").pixels
    except Refused as reason:
        tell(f"{file}: can't be drawn: {reason}")
        return np.asarray(Image.new("RGB", (SIDE, SIDE), (200, 200, 200))).transpose(2, 0, 1)
