"""Scenes with masks and boxes, and what segmentation and detection leave behind, made up: for tests of the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import fakerun
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sslflow import paths
from sslflow.data.truth import IGNORED, Annotated, Things, truth_facts, write_truth
from sslflow.runtime.files import read_json, write_json

SIZE = 24
PIXELS = ("background", "disc", "<b>square</b>")
THINGS = PIXELS[1:]
COLOURS = ((40, 40, 40), (220, 60, 60), (60, 90, 220))
COUNTS = {"pool": 6, "train": 12, "test": 10}


def scenes(counts: dict[str, int] = COUNTS, *, pixels: Sequence[str] = PIXELS, things: Sequence[str] = THINGS) -> None:
    """Prepared images of up to two things, those of the last test image none; a strip of each mask is ignored."""
    fakerun.dataset(paths.PREPARED, counts, channels=3, size=SIZE)
    draw = np.random.default_rng(0)
    total = sum(counts.values())
    images, known = np.empty((total, 3, SIZE, SIZE), np.uint8), {}
    for row in range(total):
        mask, boxes, labels = np.zeros((SIZE, SIZE), np.uint8), [], []
        for _ in range(0 if row == total - 1 else 1 + row % 2):
            side, label = int(draw.integers(6, 11)), int(draw.integers(1, 3))
            left, top = draw.integers(0, SIZE - side, 2).tolist()
            mask[top : top + side, left : left + side] = label
            boxes.append([left, top, left + side, top + side])
            labels.append(label - 1)
        images[row] = np.array(COLOURS)[mask].transpose(2, 0, 1)
        mask[:, :2] = IGNORED
        found = Things(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.zeros(len(labels), bool)
        )
        if row >= counts.get("pool", 0):
            known[row] = Annotated(mask if pixels else None, found if things else None)
    np.save(paths.PREPARED / "images-00000.npy", images)
    write_truth(paths.PREPARED, known)
    file = paths.PREPARED / "dataset.json"
    write_json(file, read_json(file) | {"truth": truth_facts(pixels, things)})


def segmented(name: str, seed: int, truth: np.ndarray, rows: np.ndarray, right: dict[tuple[str, float], float]) -> None:
    """A row whose predictions are right on that share of the pixels, for each protocol and fraction."""
    draw = np.random.default_rng([seed, len(name)])
    counts, masks, most = [], [], max(fraction for _, fraction in right)
    for (protocol, fraction), share in right.items():
        predicted = np.where(draw.random(truth.shape) < share, np.where(truth == IGNORED, 0, truth), 0).astype(np.uint8)
        for row, own, actual in zip(rows.tolist(), predicted, truth, strict=True):
            for label in range(len(PIXELS)):
                kept = actual != IGNORED
                here, there = kept & (own == label), kept & (actual == label)
                pixels = ((here & there).sum(), here.sum(), there.sum())
                counts.append((protocol, fraction, row, label, *map(int, pixels)))
            if fraction == most and protocol in ("tuned", "linear"):
                masks.append((protocol, fraction, row, png(own)))
    kept = truth != IGNORED
    pairs = truth[kept].astype(int) * len(PIXELS) + predicted[kept]
    pixels = np.bincount(pairs, minlength=len(PIXELS) ** 2).reshape(len(PIXELS), -1).tolist()
    write_json(
        paths.segmented(name, seed) / "confusion.json",
        {"classes": PIXELS, "protocol": protocol, "fraction": fraction, "pixels": pixels},
    )
    columns = ("protocol", "fraction", "row", "class", "intersection", "predicted", "actual")
    write(paths.segmented(name, seed) / "counts.parquet", columns, counts)
    write(paths.segmented(name, seed) / "masks.parquet", ("protocol", "fraction", "row", "mask"), masks)


def detected(
    name: str, seed: int, things: Sequence[Things], rows: np.ndarray, right: dict[tuple[str, float], float]
) -> None:
    """A row that finds that share of the things, and a thing in a corner of every image; where its map is highest lies
    in the middle."""
    draw = np.random.default_rng([seed, len(name)])
    lines, middle = [], SIZE / 2
    for (protocol, fraction), share in right.items():
        for row, one in zip(rows.tolist(), things, strict=True):
            lines.append((protocol, fraction, row, 0, 0.35, 0.0, 0.0, 5.0, 5.0))
            for box, label in zip(one.boxes.tolist(), one.labels.tolist(), strict=True):
                if draw.random() < share:
                    lines.append((protocol, fraction, row, label, float(draw.uniform(0.4, 1)), *box))
    columns = ("protocol", "fraction", "row", "label", "score", "left", "top", "right", "bottom")
    write(paths.detected(name, seed) / "detections.parquet", columns, lines)
    places = []
    for row, one in zip(rows.tolist(), things, strict=True):
        inside = bool(((one.boxes[:, :2] <= middle) & (one.boxes[:, 2:] > middle)).all(axis=1).any())
        covered = float((one.boxes[:, 2:] - one.boxes[:, :2]).prod(axis=1).sum()) / SIZE**2
        if len(one.labels):
            places.append((row, middle, middle, inside, inside, not inside, covered))
    columns = ("row", "x", "y", "hit", "centre", "pixels", "covered")
    write(paths.detected(name, seed) / "localised.parquet", columns, places)


def png(mask: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    return content.getvalue()


def write(file: Path, columns: Sequence[str], lines: Sequence[tuple]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(zip(columns, map(list, zip(*lines, strict=True)), strict=True))), file)
