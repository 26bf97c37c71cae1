"""How good detections are: mean average precision as COCO measures it, and over images drawn with replacement."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslflow.data.truth import Things

AT_MOST = 100
"""Detections of an image and class that are looked at, those with the highest scores."""
IOUS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which on a detection is a hit, of which mAP is the mean; the first is that of mAP50."""
RECALLS = np.linspace(0.0, 1.0, 101)

# pycocotools is imported where it is needed, as is timm: what reads no boxes does without it.


@dataclass(frozen=True)
class Detections:
    """What was found in some images, in any order."""

    image: np.ndarray
    """int64 `(d,)`: which of the images."""
    label: np.ndarray
    """int64 `(d,)`: indices into the classes of things."""
    score: np.ndarray
    """float `(d,)`: higher is surer."""
    boxes: np.ndarray
    """float `(d, 4)`: left, top, right, bottom, in pixels."""


@dataclass(frozen=True)
class Matched:
    """Which detections are hits, by COCO's rules: in the order of their scores each takes the thing of its class that
    it overlaps most, of those that none before it has taken. All that `average_precision` needs."""

    image: np.ndarray
    """int64 `(d,)`: of each detection, in the order of the images."""
    label: np.ndarray
    """int64 `(d,)`."""
    score: np.ndarray
    """float64 `(d,)`."""
    hit: np.ndarray
    """bool `(10, d)`: for each of the `IOUS`, whether the detection has a thing."""
    counted: np.ndarray
    """bool `(10, d)`: whether it counts at all: what lies on something ignored is neither hit nor miss."""
    things: np.ndarray
    """int64 `(classes, images)`: things to be found."""


def matched(things: Sequence[Things], found: Detections, classes: int) -> Matched:
    """What pycocotools' `COCOeval.evaluate` matches, for things of all sizes. `things`: of each image, of which some
    may have none; those ignored are COCO's crowds: a detection is on them by the share of itself that is inside."""
    from pycocotools.cocoeval import COCOeval

    categories = [{"id": label} for label in range(classes)]
    images = [{"id": image} for image in range(len(things))]
    known = [
        _annotation(image, label, box, iscrowd=int(ignored))
        for image, one in enumerate(things)
        for label, box, ignored in zip(one.labels.tolist(), one.boxes.tolist(), one.ignored.tolist(), strict=True)
    ]
    columns = (found.image.tolist(), found.label.tolist(), found.boxes.tolist(), found.score.tolist())
    detected = [_annotation(image, label, box, score=score) for image, label, box, score in zip(*columns, strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation: Any = COCOeval(_coco(images, categories, known), _coco(images, categories, detected), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [AT_MOST]
        evaluation.evaluate()
    pairs = [pair for pair in evaluation.evalImgs if pair is not None]
    wanted = np.zeros((classes, len(things)), np.int64)
    for pair in pairs:
        wanted[pair["category_id"], pair["image_id"]] = np.count_nonzero(pair["gtIgnore"] == 0)
    none = np.empty((len(IOUS), 0), np.bool_)
    each = [len(pair["dtScores"]) for pair in pairs]
    return Matched(
        np.repeat(np.array([pair["image_id"] for pair in pairs], np.int64), each),
        np.repeat(np.array([pair["category_id"] for pair in pairs], np.int64), each),
        np.array([score for pair in pairs for score in pair["dtScores"]], np.float64),
        np.concatenate([none, *(pair["dtMatches"] > 0 for pair in pairs)], axis=1),
        np.concatenate([none, *(~np.asarray(pair["dtIgnore"], np.bool_) for pair in pairs)], axis=1),
        wanted,
    )


def average_precision(of: Matched, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """mAP and mAP50, float64 `(draws,)` each, of samples in which image i is so many times as `weights`, `(draws,
    images)`, says; None: once each, `(1,)`.

    Average precision is the mean, over 101 recalls, of the highest precision at this recall or a higher one; mAP its
    mean over classes and the `IOUS`, mAP50 that at 0.5 alone. Classes without a thing in the sample are left out; NaN
    where none is left. With weights of 1 these are `COCOeval`'s.
    """
    weights = np.ones((1, of.things.shape[1])) if weights is None else np.asarray(weights, np.float64)
    things = weights @ of.things.T  # (draws, classes)
    precisions = np.full((len(weights), len(of.things), len(IOUS)), np.nan)
    for label in np.flatnonzero(of.things.sum(axis=1)).tolist():
        own = np.flatnonzero(of.label == label)
        own = own[np.argsort(-of.score[own], kind="stable")]
        # Elements of one draw side by side in memory: sums run along them.
        counts = np.ascontiguousarray(weights[:, of.image[own]])
        for number in range(len(IOUS)):
            hit, counted = of.hit[number, own] & of.counted[number, own], of.counted[number, own]
            # Precision is highest, for its recall, right after a hit: nothing else need be looked at.
            tried = np.cumsum(counts[:, counted], axis=1)[:, np.flatnonzero(hit[counted])]
            right = np.cumsum(counts[:, hit], axis=1)
            precisions[:, label, number] = _interpolated(right, tried, things[:, label])
    defined = np.where(things[..., None] > 0, precisions, np.nan)
    some = (things > 0).any(axis=1)
    mean, at_half = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    mean[some] = np.nanmean(defined[some], axis=(1, 2))
    at_half[some] = np.nanmean(defined[some, :, 0], axis=1)
    return mean, at_half


def _interpolated(right: np.ndarray, tried: np.ndarray, things: np.ndarray) -> np.ndarray:
    """Average precision `(draws,)`: `right` and `tried`, `(draws, hits)`, are how many detections are right, and how
    many there are, up to each hit."""
    best = np.zeros((len(right), len(RECALLS) + 1))
    recall = right / np.maximum(things, 1)[:, None]
    reached = np.searchsorted(RECALLS, recall, side="right")
    np.maximum.at(best, (np.arange(len(right))[:, None], reached), right / (tried + np.spacing(1)))
    return np.maximum.accumulate(best[:, ::-1], axis=1)[:, :-1].mean(axis=1)


def _annotation(image: int, label: int, box: list[float], **more: float) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    said = {"image_id": image, "category_id": label, "bbox": [left, top, width, height], "area": width * height}
    return {"iscrowd": 0, **said, **more}


def _coco(images: list[Any], categories: list[Any], annotations: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    content: Any = COCO()
    # COCO's 0 is "no match".
    numbered = [{"id": number, **one} for number, one in enumerate(annotations, start=1)]
    content.dataset = {"images": images, "categories": categories, "annotations": numbered}
    content.createIndex()
    return content
