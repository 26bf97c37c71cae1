"""Segmentation to look at: classes, what is taken for what, predictions beside the truth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sslflow.data.annotated import IGNORED
from sslflow.data.dataset import Dataset
from sslflow.data.formats import singular
from sslflow.drawing.embedded import Picture, picture
from sslflow.drawing.overlay import enlarged, inks, marked, stacked, tinted
from sslflow.drawing.slices import three
from sslflow.examination.where.found import Way
from sslflow.examination.where.gaps import class_ious, mean_iou
from sslflow.reporting.amounts import percent
from sslflow.reporting.images.confusion import Confusion
from sslflow.reporting.where.rows import Rows, title
from sslflow.runtime.files import read_json
from sslflow.runtime.tables import read_parquet

SIDE = 144
"""Pixels of a tile, about."""
SLICE = 96
"""The same of a slice of a volume."""
UNKNOWN = "#969696"
EACH = 4
"""Images of a kind."""
COMPARED = 4
"""Rows whose classes stand side by side."""


@dataclass(frozen=True)
class Example:
    """A test image: tiles with their titles, words below, and its name."""

    tiles: list[tuple[str, Picture]]
    caption: str
    name: str


def classes(rows: Rows, way: Way, best: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """IoU of each class in percent, of the best row and of the controls beside it: their titles, and a line for each
    class."""
    truth = rows.found.dataset.truth
    assert truth
    others = (name for name in rows.names("miou") if name not in rows.methods and rows.over(name, "miou", way))
    names = list(dict.fromkeys([best, *others]))[:COMPARED]
    found = [_class_means(rows, name, way) for name in names]
    lines = [
        (one, [percent(float(values[label])) if np.isfinite(values[label]) else "–" for values in found])
        for label, one in enumerate(truth.pixel_classes)
    ]
    return [title(name, rows.methods) for name in names], lines


def _class_means(rows: Rows, name: str, way: Way) -> np.ndarray:
    read = [counts[way] for seed in rows.found.seeds if way in (counts := rows.found.counts(name, seed))]
    return np.mean([class_ious(one, np.ones((1, len(one))))[0] for one in read], axis=0)


def confusion(rows: Rows, way: Way, name: str) -> Confusion | None:
    """Pixels of each class, and what a row took them for, over its seeds; None where that hasn't been kept of the way
    in which it was trained."""
    truth = rows.found.dataset.truth
    assert truth
    files = (rows.found.segmented(name, seed) / "confusion.json" for seed in rows.found.seeds)
    kept = [one for one in map(read_json, filter(Path.exists, files)) if one.get("classes") == truth.pixel_classes]
    own = [one for one in kept if (one["protocol"], float(f"{one['fraction']:.6g}")) == way]
    return Confusion(list(truth.pixel_classes), np.sum([one["pixels"] for one in own], axis=0)) if own else None


def read_masks(file: Path, way: Way, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images whose predictions a run kept, as far as they are among those given, and the predictions, uint8
    `(n, size, size)`; none where the file isn't there."""
    if not file.exists():
        return np.empty(0, np.int64), np.empty((0, 0, 0), np.uint8)
    table = read_parquet(file)
    columns = zip(*(table[name].to_pylist() for name in ("protocol", "fraction", "row", "mask")), strict=True)
    asked = set(rows.tolist())
    found = {
        row: np.asarray(Image.open(io.BytesIO(content)))
        for protocol, fraction, row, content in columns
        if (protocol, float(f"{fraction:.6g}")) == way and row in asked
    }
    ordered = sorted(found)
    return np.array(ordered, np.int64), np.stack([found[row] for row in ordered]) if found else np.empty((0, 0, 0))


def examples(rows: Rows, way: Way, name: str) -> list[tuple[str, list[Example]]]:
    """The best, the middle and the worst of the images in which there is more than one class, by the first seed."""
    found, dataset = rows.found, rows.found.dataset
    truth, seed = dataset.truth, next(seed for seed in rows.found.seeds if way in rows.found.counts(name, seed))
    assert truth
    kept, predicted = read_masks(found.segmented(name, seed) / "masks.parquet", way, found.rows("miou"))
    counts = found.counts(name, seed)[way][np.searchsorted(found.rows("miou"), kept)]
    several = np.flatnonzero((counts[..., 2] > 0).sum(axis=1) > 1)
    several = several if len(several) else np.arange(len(kept))
    if not len(several):
        return []
    scores = np.array([mean_iou(counts[[place]])(np.ones((1, 1)))[0] for place in several])
    chosen = best_middle_worst(np.nan_to_num(scores))
    return [
        (
            words,
            [
                _example(dataset, int(kept[place]), predicted[place], score)
                for place, score in zip(several[places], scores[places], strict=True)
            ],
        )
        for words, places in chosen
    ]


def best_middle_worst(scores: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Places of the highest scores, of those in the middle, and of the lowest, none of them twice."""
    order = np.argsort(-scores, kind="stable")
    if len(order) < 3 * EACH:
        return [("From the best to the worst", order)]
    middle = len(order) // 2 - EACH // 2
    return [("Best", order[:EACH]), ("Middle", order[middle : middle + EACH]), ("Worst", order[-EACH:])]


def _example(dataset: Dataset, row: int, predicted: np.ndarray, score: float) -> Example:
    truth = dataset.truth
    assert truth
    actual, one = truth.masks(np.array([row]))[0].numpy(), dataset.read(np.array([row]))
    predicted = predicted.reshape(actual.shape)
    wrong = (actual != IGNORED) & (predicted != actual)
    share = wrong.sum() / max(1, (actual != IGNORED).sum())
    if solid := actual.ndim == 3:
        planes = [*zip(*map(three, (one["volumes"][0].numpy(), actual, predicted, wrong)), strict=True)]
    else:
        planes = [(one["images"][0].numpy(), actual, predicted, wrong)]
    side, what = (SLICE, "voxels") if solid else (SIDE, "pixels")
    unit, colours = singular(dataset.format.unit), {**inks(truth.pixel_classes), IGNORED: UNKNOWN}
    drawn = [
        (
            enlarged(pixels, side),
            tinted(pixels, known, colours, side),
            tinted(pixels, told, colours, side),
            marked(pixels, missed, side),
        )
        for pixels, known, told, missed in planes
    ]
    tiles = dict(zip((unit, "truth", "prediction", "errors"), map(stacked, zip(*drawn, strict=True)), strict=True))
    (name,) = dataset.column("path", np.array([row]))
    caption = f"mIoU of this {unit} {percent(score)} %; {percent(float(share))} % of its {what} wrong"
    return Example([(words, picture(tile, quality=88)) for words, tile in tiles.items()], caption, name)


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """Classes and their colours."""
    return [(names[label], ink) for label, ink in inks(names).items()]
