"""What is asked about test images: which caption is theirs, which class, what a caption of them is."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from sslflow.data.captions import captions_of
from sslflow.data.dataset import Dataset
from sslflow.data.splits import NO_LABEL, TEST
from sslflow.runtime.rng import permutation
from sslflow.settings.params import Count


@dataclass(frozen=True, kw_only=True)
class Match:
    """At most so many test `images` with captions are asked about, beside so many of the training images, the `bank`.
    `templates`: what is said of a class, `{}` its name, of which the mean is taken; `beams`: captions that are followed
    up while one is told."""

    images: Count = 5000
    bank: Count = 50_000
    templates: tuple[str, ...] = ("{}",)
    beams: Count = 5

    def __post_init__(self) -> None:
        """Raises `ValueError` where there is no template, or one has no place for the class."""
        wrong = [one for one in self.templates if one.count("{}") != 1]
        if wrong or not self.templates:
            raise ValueError(
                f"match.templates: each has one {{}}, where the class stands: found {wrong[0] if wrong else 'none'}"
            )


@dataclass(frozen=True)
class Questions:
    """Test images with captions, and what is known of them."""

    rows: np.ndarray
    """Of the test images, int64 `(n,)`, in manifest order."""
    groups: np.ndarray
    """Of each, int64 `(n,)`."""
    labels: np.ndarray
    """Class of each, int64 `(n,)`, −1 where there is none."""
    captions: list[list[str]]
    """Of each."""
    texts: list[str]
    """All different ones of these, `m`."""
    relevant: np.ndarray
    """Whether a text is one of an image's captions, bool `(n, m)`."""
    classes: list[str]
    """The names, as they are read: without hyphens and underscores."""
    bank: np.ndarray
    """Training images, int64 `(b,)`."""
    bank_captions: list[list[str]]
    """Of each."""

    @property
    def text_groups(self) -> np.ndarray:
        """Of each text the group of the first of its images, int64 `(m,)`."""
        return self.groups[self.relevant.argmax(axis=0)]

    @property
    def labelled(self) -> np.ndarray:
        """Places of the images with a class, int64; none where there are fewer than two classes."""
        known = np.flatnonzero(self.labels != NO_LABEL)
        return known if len(self.classes) > 1 else known[:0]


def questions(dataset: Dataset, asked: Match) -> Questions | str:
    """What there is to ask; in words why there is nothing: no captions, or none of test images."""
    if "captions" not in dataset.beside:
        return "the images have no captions: name them in data.captions"
    known, rows = captions_of(dataset.folder), tested(dataset)
    bank = np.array([row for row in dataset.pretraining_rows.tolist() if row in known], np.int64)
    if len(rows) < 2 or not len(bank):
        return f"there are {len(rows)} test images with captions, and {len(bank)} to learn from"
    rows, bank = (_some(one, most) for one, most in ((rows, asked.images), (bank, asked.bank)))
    captions = [known[row] for row in rows.tolist()]
    texts = list(dict.fromkeys(text for own in captions for text in own))
    number = {text: place for place, text in enumerate(texts)}
    relevant = np.zeros((len(rows), len(texts)), bool)
    for place, own in enumerate(captions):
        relevant[place, [number[text] for text in own]] = True
    classes = [as_read(name) for name in dataset.classes]
    return Questions(
        rows, dataset.groups[rows], dataset.labels[rows], captions, texts, relevant, classes, bank,
        [known[row] for row in bank.tolist()],
    )  # fmt: skip


def tested(dataset: Dataset) -> np.ndarray:
    """Rows of the test images with captions; none where there are no captions."""
    rows = dataset.rows(TEST)
    return rows[dataset.column("captions", rows) > 0] if "captions" in dataset.beside else rows[:0]


def as_read(name: str) -> str:
    """The name of a class without hyphens and underscores."""
    return re.sub(r"[\s_\-]+", " ", name).strip()


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    return np.sort(rows[permutation(len(rows), 0, "match")[:most].numpy()])
