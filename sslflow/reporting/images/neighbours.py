"""Nearest neighbours of a few images, to see with one's own eyes what an encoder holds to be alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.drawing.embedded import Picture, image, picture
from sslflow.drawing.stills import stills
from sslflow.runtime.rng import permutation

CHUNK = 16_384
WIDEST = 112
"""Pixels: larger images are shown smaller; the page shows them half as wide, and must not grow with their size."""


@dataclass(frozen=True)
class Shown:
    """One image: its looks, name, class ('' for none), similarity to the query, and whether its class is another."""

    picture: Picture
    name: str
    label: str
    similarity: float
    wrong: bool


def queries(dataset: Dataset, count: int, seed: int) -> np.ndarray:
    """Rows of `count` test images (of any, where there is no test split), the same for every method."""
    rows = dataset.rows(TEST)
    rows = rows if len(rows) else np.arange(len(dataset))
    return rows[permutation(len(rows), seed, "report", "queries").numpy()[:count]]


def nearest(features: np.ndarray, asked: np.ndarray, bank: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and cosine similarities `(len(asked), <= count)` of the closest in `bank`, never the query itself.

    `features` `(n, dim)` may be memory-mapped: it is read in pieces of the bank.
    """
    wanted = _directions(features[asked])
    rows = np.empty((len(asked), 0), dtype=np.int64)
    close = np.empty((len(asked), 0), dtype=np.float32)
    for start in range(0, len(bank), CHUNK):
        here = bank[start : start + CHUNK]
        similarity = wanted @ _directions(features[here]).T
        similarity[asked[:, None] == here[None, :]] = -np.inf
        rows = np.concatenate([rows, np.broadcast_to(here, similarity.shape)], axis=1)
        close = np.concatenate([close, similarity], axis=1)
        keep = np.argsort(-close, axis=1, kind="stable")[:, :count]
        rows, close = np.take_along_axis(rows, keep, axis=1), np.take_along_axis(close, keep, axis=1)
    return rows, close


def table(dataset: Dataset, features: np.ndarray, asked: np.ndarray, count: int) -> list[list[Shown]]:
    """For each query a list: the query, then its neighbours among the images that are not test images."""
    bank = np.delete(np.arange(len(dataset)), dataset.rows(TEST))
    bank = bank if len(bank) else np.arange(len(dataset))
    rows, close = nearest(features, asked, bank, count)
    lines = []
    for query, found, similarities in zip(asked, rows, close, strict=True):
        line = [_shown(dataset, query, 1.0, query)]
        pairs = zip(found, similarities, strict=True)
        line += [_shown(dataset, row, float(value), query) for row, value in pairs if np.isfinite(value)]
        lines.append(line)
    return lines


def _shown(dataset: Dataset, row: np.integer, similarity: float, query: np.integer) -> Shown:
    own, other = dataset.labels[query], dataset.labels[row]
    label = dataset.classes[other] if other >= 0 else ""
    small = image(stills(dataset, np.array([row]))[0])
    small.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    (name,) = dataset.column("path", np.array([row]))
    return Shown(picture(small, quality=88), name, label, similarity, bool(own >= 0 and other >= 0 and own != other))


def _directions(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
