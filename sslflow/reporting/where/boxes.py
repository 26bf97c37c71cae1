"""Detection to look at: what was found beside what is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslflow.data.truth import Things
from sslflow.dense.average_precision import Detections, Matched, matched
from sslflow.drawing.embedded import picture
from sslflow.drawing.overlay import Frame, framed
from sslflow.examination.where.found import Way
from sslflow.reporting.where.masks import Example, best_middle_worst
from sslflow.reporting.where.rows import Rows

RIGHT, WRONG, MISSED = "#1f8a4c", "#e0242e", "#d97700"
SIDE = 208
"""Pixels of a tile, about."""
HALF = 0
"""Of the overlaps: a half."""


@dataclass(frozen=True)
class Look:
    """Examples of each kind, and the score from which on detections are shown."""

    examples: list[tuple[str, list[Example]]]
    score: float


def look(rows: Rows, way: Way, name: str) -> Look | None:
    """The best, the middle and the worst of the images with something in them, by the first seed; None where there are
    none."""
    found, truth = rows.found, rows.found.dataset.truth
    seed = next(seed for seed in found.seeds if way in found.detections(name, seed))
    assert truth
    things, every = truth.things(found.rows("map")), found.detections(name, seed)[way]
    threshold = best_threshold(matched(things, every, len(truth.thing_classes)))
    sure = every.score >= threshold
    shown = Detections(every.image[sure], every.label[sure], every.score[sure], every.boxes[sure])
    hits, missed = outcome(things, shown, len(truth.thing_classes))
    filled = np.flatnonzero([(~one.ignored).any() for one in things])
    if not len(filled):
        return None
    right = np.bincount(shown.image, weights=hits, minlength=len(things))
    total = np.bincount(shown.image, minlength=len(things)) + np.array([(~one.ignored).sum() for one in things])
    f1 = (2 * right / np.maximum(total, 1))[filled]
    return Look(
        [
            (words, [_example(rows, int(image), things[image], shown, hits, missed[image]) for image in filled[places]])
            for words, places in best_middle_worst(f1)
        ],
        threshold,
    )


def best_threshold(of: Matched) -> float:
    """The score from which on detections are right most often for what they miss: the highest F1 over all images, at
    an overlap of a half; above all where nothing is right."""
    order = np.argsort(-of.score, kind="stable")
    counted = order[of.counted[HALF, order]]
    right = np.cumsum(of.hit[HALF, counted])
    if not len(right) or not right[-1]:
        return float("inf")
    f1 = 2 * right / (np.arange(1, len(right) + 1) + of.things.sum())
    return float(of.score[counted[int(f1.argmax())]])


def outcome(things: list[Things], found: Detections, classes: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Whether each detection overlaps a thing of its class by a half, the surest first and each thing once, bool
    `(d,)`; and for each image which of its things were missed."""
    hits, missed = np.zeros(len(found.score), bool), [~one.ignored for one in things]
    for place in np.argsort(-found.score, kind="stable").tolist():
        one, open_ = things[found.image[place]], missed[found.image[place]]
        free = np.flatnonzero(open_ & (one.labels == found.label[place]))
        if len(free):
            overlaps = overlap(found.boxes[place], one.boxes[free])
            if overlaps.max() >= 0.5:
                hits[place], open_[free[overlaps.argmax()]] = True, False
    return hits, missed


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box and each of the others, `(k,)`."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.maximum(inner, 0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return both / np.maximum(areas - both, 1e-9)


def _example(
    rows: Rows, image: int, things: Things, shown: Detections, hits: np.ndarray, missed: np.ndarray
) -> Example:
    dataset, truth = rows.found.dataset, rows.found.dataset.truth
    assert truth
    row = rows.found.rows("map")[[image]]
    pixels = dataset.read(row)["images"][0].numpy()
    names = truth.thing_classes
    known = [
        Frame(box, names[label], "#6b7280" if ignored else MISSED if lost else RIGHT, dashed=bool(ignored or lost))
        for box, label, ignored, lost in zip(
            things.boxes.tolist(), things.labels.tolist(), things.ignored, missed, strict=True
        )
    ]
    own = np.flatnonzero(shown.image == image)
    told = [
        Frame(
            shown.boxes[place].tolist(),
            f"{names[shown.label[place]]} {shown.score[place]:.2f}",
            RIGHT if hits[place] else WRONG,
        )
        for place in own[np.argsort(shown.score[own])].tolist()
    ]
    tiles = {
        "truth": framed(pixels, known, SIDE),
        "found": framed(pixels, told, SIDE),
    }
    count, right = int((~things.ignored).sum()), int(hits[own].sum())
    caption = f"{right} of {count} found, {len(own) - right} wrong"
    (name,) = dataset.column("path", row)
    return Example([(words, picture(tile, quality=88)) for words, tile in tiles.items()], caption, name)


def words_of(threshold: float) -> str:
    """`from a score of 0.42 on`."""
    return f"from a score of {threshold:.2f} on" if np.isfinite(threshold) else "none: nothing is right"
