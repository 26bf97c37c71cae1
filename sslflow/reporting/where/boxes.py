"""Detection to look at: what was found beside what is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sslflow.data.truth import Things
from sslflow.dense.average_precision import AT_MOST, Detections, Matched, matched
from sslflow.drawing.embedded import picture
from sslflow.drawing.overlay import Frame, framed
from sslflow.examination.where.found import Way
from sslflow.reporting.where.masks import Example, best_middle_worst
from sslflow.reporting.where.rows import Rows

RIGHT, WRONG, MISSED, NEITHER = "#1f8a4c", "#e0242e", "#d97700", "#6b7280"
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
    outcomes = outcome(things, shown, len(truth.thing_classes))
    filled = np.flatnonzero([(~one.ignored).any() for one in things])
    if not len(filled):
        return None
    f1 = each_f1(things, shown, outcomes)[filled]
    return Look(
        [
            (words, [_example(rows, int(image), things[image], shown, outcomes) for image in filled[places]])
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


@dataclass(frozen=True)
class Outcome:
    """What became of detections, and of things, at an overlap of a half."""

    hit: np.ndarray
    """bool `(d,)`: the detection is right."""
    counted: np.ndarray
    """bool `(d,)`: it is right or wrong; what lies on something ignored is neither."""
    missed: list[np.ndarray]
    """bool, of each image: which of its things no detection has found."""


def outcome(things: list[Things], found: Detections, classes: int) -> Outcome:
    """As mAP takes them; what it doesn't look at counts neither way."""
    from torchvision.ops import box_iou  # takes long to load, and the check of settings needs none of it

    of = matched(things, found, classes)
    order = np.lexsort((-found.score, found.image, found.label))  # as pycocotools goes through them
    places = found.label[order] * len(things) + found.image[order]
    order = order[np.arange(len(order)) - np.searchsorted(places, places) < AT_MOST]
    hit, counted = np.zeros(len(found.score), bool), np.zeros(len(found.score), bool)
    hit[order], counted[order] = of.hit[HALF] & of.counted[HALF], of.counted[HALF]
    missed = [~one.ignored for one in things]
    for place in order[hit[order]].tolist():
        one, open_ = things[found.image[place]], missed[found.image[place]]
        free = np.flatnonzero(open_ & (one.labels == found.label[place]))
        overlaps = box_iou(torch.from_numpy(found.boxes[[place]]), torch.from_numpy(one.boxes[free]))
        open_[free[int(overlaps.argmax())]] = False
    return Outcome(hit, counted, missed)


def each_f1(things: list[Things], found: Detections, outcomes: Outcome) -> np.ndarray:
    """F1 of each image, `(n,)`: how much of what is there was found, and of what was found is there; 0 where neither
    is anything."""
    right = np.bincount(found.image, weights=outcomes.hit, minlength=len(things))
    total = np.bincount(found.image, weights=outcomes.counted, minlength=len(things))
    total += [(~one.ignored).sum() for one in things]
    return 2 * right / np.maximum(total, 1)


def _example(rows: Rows, image: int, things: Things, shown: Detections, outcomes: Outcome) -> Example:
    dataset, truth = rows.found.dataset, rows.found.dataset.truth
    assert truth
    row = rows.found.rows("map")[[image]]
    pixels = dataset.read(row)["images"][0].numpy()
    names = truth.thing_classes
    known = [
        Frame(box, names[label], NEITHER if ignored else MISSED if lost else RIGHT, dashed=bool(ignored or lost))
        for box, label, ignored, lost in zip(
            things.boxes.tolist(), things.labels.tolist(), things.ignored, outcomes.missed[image], strict=True
        )
    ]
    own = np.flatnonzero(shown.image == image)
    told = [
        Frame(
            shown.boxes[place].tolist(),
            f"{names[shown.label[place]]} {shown.score[place]:.2f}",
            RIGHT if outcomes.hit[place] else WRONG if outcomes.counted[place] else NEITHER,
        )
        for place in own[np.argsort(shown.score[own])].tolist()
    ]
    tiles = {
        "truth": framed(pixels, known, SIDE),
        "found": framed(pixels, told, SIDE),
    }
    count, right, counted = int((~things.ignored).sum()), int(outcomes.hit[own].sum()), int(outcomes.counted[own].sum())
    caption = f"{right} of {count} found, {counted - right} wrong"
    (name,) = dataset.column("path", row)
    return Example([(words, picture(tile, quality=88)) for words, tile in tiles.items()], caption, name)


def words_of(threshold: float) -> str:
    """`from a score of 0.42 on`."""
    return f"from a score of {threshold:.2f} on" if np.isfinite(threshold) else "none: nothing is right"
