"""A 2-D map of the features: PCA, then t-SNE, of a seeded sample of the images."""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from sslflow.data.dataset import Dataset
from sslflow.drawing.embedded import Picture, sprite
from sslflow.drawing.stills import stills
from sslflow.runtime.rng import permutation

COMPONENTS = 50
PERPLEXITY = 30.0
ITERATIONS = 500
CELL = 48
"""Pixels: the widest thumbnail in the sprite."""


def sample(dataset: Dataset, count: int, seed: int) -> np.ndarray:
    """Rows of at most `count` images of all splits, the same for every method, in manifest order."""
    return np.sort(permutation(len(dataset), seed, "report", "map").numpy()[:count])


def thumbnails(dataset: Dataset, rows: np.ndarray) -> tuple[Picture, int, int]:
    """The images of the rows on one picture; its columns; the width of each in pixels."""
    pictures = stills(dataset, rows)
    cell = min(CELL, pictures.shape[-1])
    page, columns = sprite(pictures, cell)
    return page, columns, cell


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """Places in the unit square, `(n, 2)`, of features `(n, dim)`: near in direction is near on the map.

    Features are scaled to length 1, as the kNN probe sees them, reduced to 50 principal components, and laid out by
    t-SNE that starts from the first two. Fewer than five images, or features that are all alike, stay there.
    """
    from sklearn.manifold import TSNE  # a second to load, which no check of settings needs

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    centred = features / np.maximum(lengths, 1e-12)
    centred = centred - centred.mean(axis=0)
    with threadpool_limits(1):  # sums over another number of threads differ in their last bits, and t-SNE blows that up
        _, spread, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        components = centred @ (axes * np.sign(axes.sum(axis=1, keepdims=True) + 1e-300))[:COMPONENTS].T
        places = np.zeros((len(features), 2))
        places[:, : components.shape[1]] = components[:, :2]
        if len(features) >= 5 and spread[0] > 1e-6:
            start = (places / places[:, 0].std() * 1e-4).astype(np.float32)
            perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
            tsne = TSNE(2, init=start, perplexity=perplexity, max_iter=ITERATIONS, random_state=seed % 2**32)
            places = tsne.fit_transform(components.astype(np.float32))
    return _unit(places)


def clusters(file_rows: np.ndarray, file_clusters: np.ndarray, rows: np.ndarray) -> list[int]:
    """The cluster of each of `rows`, -1 where there is none, from the columns of a pseudo-label table."""
    known: dict[int, int] = dict(zip(file_rows.tolist(), file_clusters.tolist(), strict=True))
    return [known.get(row, -1) for row in rows.tolist()]


def layout(places: np.ndarray) -> list[list[int]]:
    """Places as whole numbers from 0 to 1000: a third of the page's bytes and finer than a pixel."""
    return np.rint(places * 1000).astype(int).tolist()


def groups(dataset: Dataset, rows: np.ndarray) -> dict[str, Any]:
    """What the page tells of each image on the map: name, class (-1: none), split."""
    return {
        "names": dataset.column("path", rows).tolist(),
        "labels": dataset.labels[rows].tolist(),
        "splits": dataset.column("split", rows).tolist(),
    }


def _unit(places: np.ndarray) -> np.ndarray:
    """Moved and scaled into the unit square, keeping the proportions, in the middle of the shorter side."""
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5
