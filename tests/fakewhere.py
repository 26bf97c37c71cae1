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
from sslflow.data.annotated import IGNORED
from sslflow.data.truth import Annotated, Things, truth_facts, write_truth
from sslflow.runtime.about import about
from sslflow.runtime.files import read_json, write_json, write_metrics
from sslflow.stages.detect import DETECTIONS

SIZE = 24
PIXELS = ("background", "disc", "<b>square</b>")
THINGS = PIXELS[1:]
COLOURS = ((40, 40, 40), (220, 60, 60), (60, 90, 220))
COUNTS = {"pool": 6, "train": 12, "test": 10}


def scenes(counts: dict[str, int] = COUNTS, *, pixels: Sequence[str] = PIXELS, things: Sequence[str] = THINGS) -> None:
    """Prepared images of up to two things, in every third another that is ignored, as crowds are; in the last test
    image nothing, in the one before only what is ignored. A strip of each mask is ignored, too."""
    fakerun.dataset(paths.PREPARED, counts, channels=3, size=SIZE)
    draw = np.random.default_rng(4)
    total = sum(counts.values())
    images, known = np.empty((total, 3, SIZE, SIZE), np.uint8), {}
    for row in range(total):
        mask, boxes, labels, aside = np.zeros((SIZE, SIZE), np.uint8), [], [], []
        for number in range(0 if row == total - 1 else 1 + row % 2 + (row % 3 == 0)):
            side, label = int(draw.integers(6, 11)), int(draw.integers(1, 3))
            left, top = draw.integers(0, SIZE - side, 2).tolist()
            mask[top : top + side, left : left + side] = label
            boxes.append([left, top, left + side, top + side])
            labels.append(label - 1)
            aside.append(number > row % 2 or row == total - 2)
        images[row] = np.array(COLOURS)[mask].transpose(2, 0, 1)
        mask[:, :2] = IGNORED
        found = Things(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(aside, bool))
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
    write(paths.segmented(name, seed) / "counts.parquet", columns, counts, rows)
    write(paths.segmented(name, seed) / "masks.parquet", ("protocol", "fraction", "row", "mask"), masks)


def detected(
    name: str,
    seed: int,
    things: Sequence[Things],
    rows: np.ndarray,
    right: dict[tuple[str, float], float],
    pointing: float = 0.5,
) -> None:
    """A row that finds that share of the things, but for a column of pixels, the left edge of all that is ignored, and
    in every image a thing in a corner, where none is; its map points at things in that share of the images, pixels in
    two of three."""
    draw = np.random.default_rng([seed, len(name)])
    lines, middle = [], SIZE / 2
    for (protocol, fraction), share in right.items():
        for row, one in zip(rows.tolist(), things, strict=True):
            lines.append((protocol, fraction, row, 0, 0.35, 0.0, 0.0, 1.0, 1.0))
            for box, label, ignored in zip(one.boxes.tolist(), one.labels.tolist(), one.ignored.tolist(), strict=True):
                if ignored or draw.random() < share:
                    score = 0.99 if ignored else float(draw.uniform(0.4, 0.98))
                    right_edge = box[0] + 3 if ignored else box[2] - 1
                    lines.append((protocol, fraction, row, label, score, *box[:2], right_edge, box[3]))
    columns = ("protocol", "fraction", "row", "label", "score", "left", "top", "right", "bottom")
    write(paths.detected(name, seed) / "detections.parquet", columns, lines, rows)
    places = []
    for number, (row, one) in enumerate(zip(rows.tolist(), things, strict=True)):
        boxes = one.boxes[~one.ignored]
        if len(boxes):
            hit = draw.random() < pointing
            centre = bool(((boxes[:, :2] <= middle) & (boxes[:, 2:] > middle)).all(axis=1).any())
            covered = float((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum()) / SIZE**2
            x, y = boxes[0].reshape(2, 2).mean(axis=0).tolist() if hit else (0.5, 0.5)
            places.append((row, x, y, hit, centre, number % 3 > 0, covered))
    columns = ("row", "x", "y", "hit", "centre", "pixels", "covered")
    write(paths.detected(name, seed) / "localised.parquet", columns, places)


def png(mask: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    return content.getvalue()


def write(file: Path, columns: Sequence[str], lines: Sequence[tuple], rows: np.ndarray | None = None) -> None:
    """`rows`: those that the table says that it is about."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(zip(columns, map(list, zip(*lines, strict=True)), strict=True)))
    pq.write_table(table if rows is None else table.replace_schema_metadata(about(rows)), file)


def nothing_detected(name: str, seed: int, rows: np.ndarray, ways: Sequence[tuple[str, float]]) -> None:
    """A row that was trained so and finds nothing."""
    file = paths.detected(name, seed) / "detections.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(DETECTIONS.empty_table().replace_schema_metadata(about(rows)), file)
    scores = {f"{protocol}_{metric}_{100 * share:g}pct": 0.0 for protocol, share in ways for metric in ("map", "map50")}
    write_metrics(paths.metrics("detect", paths.run_name(name, seed)), scores)
