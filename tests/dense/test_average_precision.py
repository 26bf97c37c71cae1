"""mAP against pycocotools, with images once and drawn with replacement."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sslflow.data.truth import Things
from sslflow.dense.average_precision import Detections, average_precision, matched

CLASSES = 4


def drawn(seed: int, images: int, ignored: float = 0.15) -> tuple[list[Things], Detections]:
    """Things, some of them ignored, some images without, and detections near them and elsewhere; class 3 is never
    there, but found."""
    numbers = np.random.default_rng(seed)
    things, found = [], []
    for image in range(images):
        count = int(numbers.integers(0, 5))
        corners = numbers.uniform(0, 40, (count, 2))
        boxes = np.concatenate([corners, corners + numbers.uniform(5, 24, (count, 2))], axis=1)
        labels = numbers.integers(0, 3, count)
        things.append(Things(boxes.astype(np.float32), labels, numbers.random(count) < ignored))
        for box, label in zip(boxes, labels, strict=True):
            for _ in range(int(numbers.integers(0, 4))):
                found.append((image, label, numbers.random() ** 0.5, *(box + numbers.normal(0, 1.5, 4))))
        for _ in range(int(numbers.integers(0, 4))):
            left, top = numbers.uniform(0, 40, 2)
            found.append((image, numbers.integers(0, 4), numbers.random(), left, top, left + 12, top + 15))
    table = np.array(found).reshape(-1, 6 + 1)
    return things, Detections(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:])


def by_coco(things: list[Things], found: Detections, taken: np.ndarray) -> tuple[float, float]:
    """`COCOeval`'s own first two numbers for a set in which each image stands as often as `taken` says."""
    known: list[dict[str, Any]] = []
    detected: list[dict[str, Any]] = []
    for number, image in enumerate(np.repeat(np.arange(len(things)), taken).tolist()):
        one = things[image]
        for box, label, ignored in zip(one.boxes.tolist(), one.labels.tolist(), one.ignored.tolist(), strict=True):
            known.append({**written(number, label, box), "iscrowd": int(ignored), "id": len(known) + 1})
        for i in np.flatnonzero(found.image == image).tolist():
            box, score = found.boxes[i].tolist(), float(found.score[i])
            detected.append({**written(number, int(found.label[i]), box), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(int(taken.sum()))],
            "categories": [{"id": i} for i in range(CLASSES)],
            "annotations": known,
        }
        truth.createIndex()
        evaluation: Any = COCOeval(truth, truth.loadRes(detected), "bbox")
        for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
            step()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def written(image: int, label: int, box: list[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {"image_id": image, "category_id": label, "bbox": [left, top, width, height], "area": width * height}


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_coco(seed: int) -> None:
    things, found = drawn(seed, 25)
    mean, at_half = average_precision(matched(things, found, CLASSES))
    expected = by_coco(things, found, np.ones(25, int))
    assert 0.1 < expected[0] < expected[1] < 0.9
    assert (mean.item(), at_half.item()) == pytest.approx(expected, abs=1e-12)


def test_images_drawn_with_replacement_count_as_often_as_they_are_drawn() -> None:
    things, found = drawn(7, 15)
    taken = np.random.default_rng(0).multinomial(15, np.full(15, 1 / 15), size=4)
    mean, at_half = average_precision(matched(things, found, CLASSES), taken)
    expected = [by_coco(things, found, one) for one in taken]
    assert len(set(expected)) == 4
    np.testing.assert_allclose(np.stack([mean, at_half], axis=1), expected, atol=1e-12)


def test_images_of_which_no_class_is_drawn_have_no_average_precision() -> None:
    nothing = Things(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_))
    box = np.array([[2, 2, 20, 20]], np.float32)
    things = [nothing, Things(box, np.array([1]), np.array([False]))]
    found = Detections(np.array([0, 1]), np.array([1, 1]), np.array([0.9, 0.5]), np.concatenate([box, box]))
    mean, at_half = average_precision(matched(things, found, 2), np.array([[1, 1], [1, 0], [0, 1]]))
    # A false alarm in the image without anything halves the precision; alone, there is nothing to be found.
    np.testing.assert_allclose(mean, [0.5, np.nan, 1.0])
    np.testing.assert_allclose(at_half, [0.5, np.nan, 1.0])


def test_nothing_found_is_worth_nothing() -> None:
    things, _ = drawn(1, 6)
    empty = Detections(np.empty(0, int), np.empty(0, int), np.empty(0), np.empty((0, 4)))
    assert [values.tolist() for values in average_precision(matched(things, empty, CLASSES))] == [[0.0], [0.0]]


def test_what_lies_on_something_ignored_is_neither_hit_nor_miss() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 50, 50]], np.float32)
    things = [Things(boxes, np.array([0, 0]), np.array([False, True]))]
    inside = np.array([[0, 0, 10, 10], [22, 22, 30, 30]])
    found = Detections(np.array([0, 0]), np.array([0, 0]), np.array([0.5, 0.9]), inside)
    assert average_precision(matched(things, found, 1))[0].item() == pytest.approx(1)
    elsewhere = Detections(found.image, found.label, found.score, np.array([[0, 0, 10, 10], [5, 40, 15, 60]]))
    assert average_precision(matched(things, elsewhere, 1))[0].item() == pytest.approx(0.5)
