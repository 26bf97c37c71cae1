"""Answers about captions to look at: by the first seed of a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sslflow.data.captions import captions_of
from sslflow.data.dataset import Dataset
from sslflow.drawing.embedded import Picture, image, picture
from sslflow.examination.captions.questions import as_read
from sslflow.reporting.captions.rows import Row, Rows
from sslflow.reporting.images.confusion import Confusion
from sslflow.runtime.rng import permutation

IMAGES, TEXTS = 12, 6
"""That are shown."""
SIDE = 112
"""Pixels of a picture, at most."""


@dataclass(frozen=True)
class Shown:
    """A test image: its looks, name and captions, and what is said of it, each with whether that is one of them."""

    picture: Picture
    name: str
    known: list[str]
    said: list[tuple[str, bool]]


@dataclass(frozen=True)
class Search:
    """A text, and the images that were found for it, each with whether it is one of its own."""

    text: str
    found: list[tuple[Picture, str, bool]]


def found_texts(rows: Rows, row: Row, seed: int) -> Iterator[Shown]:
    """Test images by chance, and the texts that were found for them."""
    table, known = rows.made(row)[0], captions_of(rows.dataset.folder)
    for place in _chosen(table["row"], IMAGES, seed):
        number = table["row"][place]
        said = [(text, text in known[number]) for text in table["found"][place][:3]]
        yield Shown(*_picture(rows.dataset, number), known[number], said)


def told(rows: Rows, row: Row, seed: int) -> Iterator[Shown]:
    """Test images by chance, and the caption that is told of them."""
    table, known = rows.made(row)[0], captions_of(rows.dataset.folder)
    for place in _chosen(table["row"], IMAGES, seed):
        number = table["row"][place]
        said = [(table["told"][place] or "(nothing)", table["told_f1"][place] == 1)]
        yield Shown(*_picture(rows.dataset, number), known[number], said)


def found_images(rows: Rows, row: Row, seed: int) -> Iterator[Search]:
    """Texts by chance, and the images that were found for them."""
    table, known = rows.texts(row)[0], captions_of(rows.dataset.folder)
    for place in _chosen(table["text"], TEXTS, seed):
        text = table["text"][place]
        found = [(*_picture(rows.dataset, number), text in known[number]) for number in table["found"][place]]
        yield Search(text, found)


def confusion(rows: Rows, row: Row) -> Confusion | None:
    """The classes of the test images, and those whose name fits best, over all seeds; None where there are none."""
    classes = rows.dataset.classes
    number = {as_read(name): place for place, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for table in rows.made(row):
        actual = rows.dataset.labels[np.array(table["row"])]
        for label, answer in zip(actual.tolist(), table["class"], strict=True):
            if label >= 0 and answer in number:
                counts[label, number[answer]] += 1
    return Confusion(list(classes), counts) if counts.any() else None


def _chosen(items: list, count: int, seed: int) -> list[int]:
    return permutation(len(items), seed, "report", "captions")[:count].tolist()


def _picture(dataset: Dataset, row: int) -> tuple[Picture, str]:
    small = image(dataset.read(np.array([row]))["images"][0].numpy())
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture(small, quality=88), dataset.column("path", np.array([row]))[0]
