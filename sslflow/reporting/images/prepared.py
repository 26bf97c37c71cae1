"""What has been prepared: how many images of what, what was put aside, what has been annotated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.data.classes import summary
from sslflow.data.dataset import Dataset
from sslflow.data.formats import AnyFormat, ImageFormat, TextFormat, VolumeFormat
from sslflow.data.splits import TEST, TRAIN
from sslflow.reporting import origin
from sslflow.runtime.files import read_json

ANNOTATED = {"mask": "masks", "boxes": "boxes"}
"""Kinds of what is known of places, and what they are called."""
FLAWS = {
    "things_ignored": "boxes are ignored: neither to be found nor missed",
    "cut_away": "boxes were cut away with the images' edges",
    "annotations_mended": "annotations were mended",
    "annotations_left_out": "annotations were left out",
    "annotations_unusable": "images count as not annotated, since what is said of them can't be used",
    "annotation_conflicts": "images equal another one that is annotated otherwise",
}
"""What `prepare` counts of what is wrong with annotations, in words; all of them stand in annotations.csv."""


def section(dataset: Dataset, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of them."""
    reasons, examples = origin.quarantined(dataset.folder)
    file = paths.metrics("prepare")
    facts = read_json(file) if file.exists() else {}
    told = {"duplicates": "exact duplicates", "label_conflicts": "images whose exact double has another label"}
    told |= {"passed_over": "hidden files and files made by a system passed over"} if facts.get("passed_over") else {}
    told |= {"thinned": "labelled images left out by data.imbalance"} if facts.get("thinned") else {}
    counts = np.bincount(dataset.labels[dataset.labels >= 0], minlength=len(dataset.classes)).tolist()
    return {
        "images": len(dataset),
        "unit": dataset.format.unit,
        "shape": shape(dataset.format),
        "classes": summary(dict(zip(dataset.classes, counts, strict=True))) if dataset.classes else "no classes",
        "warnings": read_json(dataset.folder / "dataset.json").get("warnings", []),
        "splits": origin.splits(dataset),
        "reasons": reasons,
        "examples": examples,
        "quarantined": sum(count for _, count in reasons),
        "leaked": facts.get("leaked", 0),
        "kept": (params.get("data") or {}).get("duplicates") == "keep",
        "found": [f"{facts[key]:,} {words}" for key, words in told.items() if key in facts],
        "annotated": annotated(dataset, facts),
    }


def shape(format: AnyFormat) -> str:
    """What is the same of all examples, in words."""
    if isinstance(format, TextFormat):
        return f"{format.length} tokens at most, of a vocabulary of {format.vocabulary:,}"
    if isinstance(format, VolumeFormat):
        return f"{format.side} × {format.side} × {format.side} voxels"
    assert isinstance(format, ImageFormat)
    return f"{format.size} × {format.size} pixels, {'grey' if format.channels == 1 else 'colour'}"


def annotated(dataset: Dataset, facts: Mapping[str, int]) -> list[str]:
    """Sentences about masks and boxes; none where there are none."""
    return list(_annotated(dataset, facts)) if dataset.truth else []


def _annotated(dataset: Dataset, facts: Mapping[str, int]) -> Iterator[str]:
    truth = dataset.truth
    assert truth
    for kind, words in ANNOTATED.items():
        counts = {split: len(dataset.annotated_rows(split, kind)) for split in (TRAIN, TEST)}
        if any(counts.values()):
            names = truth.pixel_classes if kind == "mask" else truth.thing_classes
            said = f"{counts[TRAIN]:,} images to train on and {counts[TEST]:,} to test on have {words}, of "
            if kind == "mask":
                yield f"{said}{len(names):,} classes of pixels: {', '.join(names)}."
                continue
            things = truth.things(truth.rows(kind))
            labels = np.concatenate([np.empty(0, np.int64), *(one.labels[~one.ignored] for one in things)])
            of_class = np.bincount(labels, minlength=len(names)).tolist()
            empty = sum(not len(one.labels) for one in things)
            yield f"{said}{summary(dict(zip(names, of_class, strict=True)))}; {empty:,} of the images show nothing."
    wrong = [f"{facts[key]:,} {words}" for key, words in FLAWS.items() if facts.get(key)]
    if wrong:
        yield f"{'; '.join(wrong)}: data/prepared/annotations.csv."
