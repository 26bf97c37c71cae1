"""Images of squares and discs on a noisy ground, with the class of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sslflow.data.annotated import IGNORED
from sslflow.data.dataset import Dataset
from sslflow.data.truth import Annotated, truth_facts, write_truth
from sslflow.runtime.files import read_json, write_json
from tests.conftest import write_dataset

SIDE = 32
CLASSES = ("ground", "square", "disc")


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `(count, 3, SIDE, SIDE)`, and masks uint8 `(count, SIDE, SIDE)`: a square and a disc in each, whose shape
    and colour tell them apart, some pixels between them ignored."""
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 90, (count, 3, SIDE, SIDE)).astype(np.uint8)
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for image, mask in zip(images, masks, strict=True):
        y, x, v, u = numbers.integers(6, SIDE - 6, 4)
        disc = (rows - v) ** 2 + (columns - u) ** 2 <= 25
        square = (abs(rows - y) <= 5) & (abs(columns - x) <= 5)
        for number, shape in ((1, square), (2, disc)):
            image[number][shape], mask[shape] = 220, number
        mask[square & disc] = IGNORED
    return images, masks


def masked_dataset(
    folder: Path,
    train: int = 24,
    test: int = 8,
    classes: Sequence[str] = CLASSES,
    masks: dict[int, np.ndarray] | None = None,
    unannotated: int = 4,
) -> Dataset:
    """A prepared set of such images, none of which has a class of its own, the first `unannotated` no mask; `masks`: of
    these rows others."""
    count = unannotated + train + test
    images, found = drawn(count)
    splits = ["train"] * (unannotated + train) + ["test"] * test
    # A class for images needs a label, which these haven't.
    write_dataset(folder, images, np.full(count, -1), splits)
    annotated = {row: Annotated(found[row]) for row in range(unannotated, count)}
    annotated |= {row: Annotated(mask) for row, mask in (masks or {}).items()}
    write_truth(folder, annotated)
    facts = folder / "dataset.json"
    write_json(facts, {**read_json(facts), "truth": truth_facts(classes, [])})
    return Dataset(folder)
