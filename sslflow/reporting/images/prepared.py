"""What has been prepared: how many images of what, what was put aside, what has been annotated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.data.classes import summary
from sslflow.data.dataset import Dataset
from sslflow.data.depth import FIELD
from sslflow.data.formats import AnyFormat, ImageFormat, TextFormat, VolumeFormat
from sslflow.data.splits import POOL, TEST, TRAIN
from sslflow.reporting import origin
from sslflow.runtime.files import read_json
from sslflow.settings.params import lookup

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
DEPTH_FLAWS = {
    "depth_unusable": "depth maps can't be used, and their images count as without",
    "depth_left_out": "depth maps belong to no image",
}
"""The same of depth maps, in depth.csv."""
NEEDED = (
    ("segment", "mask", "masks", "docs/dense.md"),
    ("detect", "boxes", "boxes", "docs/dense.md"),
    ("depth", "depth", "depth maps", "docs/depth.md"),
    ("segment_volumes", "mask", "label volumes", "docs/volumes.md"),
)
"""What rows of a list in `run` learn from: its kind, its name, and the guide that says how to give it."""


def section(dataset: Dataset, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of them."""
    reasons, examples = origin.quarantined(dataset.folder)
    file = paths.metrics("prepare")
    facts = read_json(file) if file.exists() else {}
    told = {"duplicates": "exact duplicates"}
    if dataset.classes:
        told["label_conflicts"] = f"{dataset.format.unit} whose exact double has another label"
    told |= {"passed_over": "hidden files and files made by a system passed over"} if facts.get("passed_over") else {}
    told |= {"thinned": "labelled images left out by data.imbalance"} if facts.get("thinned") else {}
    counts = np.bincount(dataset.labels[dataset.labels >= 0], minlength=len(dataset.classes)).tolist()
    return {
        "images": origin.count(dataset),
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


def unannotated(params: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """Rows that were asked for, and had nothing to learn from or to be tested on."""
    return [
        f"run.{setting} and its controls were left out: there are no {dataset.format.unit} with {what} to "
        f"{' and to '.join(without)} on. {guide} says how to name them."
        for setting, kind, what, guide in NEEDED
        if any(lookup(params, "run").get(key) for key in (setting, f"{setting}_controls"))
        if (without := [split for split in (TRAIN, TEST) if not len(dataset.annotated_rows(split, kind))])
    ]


def shape(format: AnyFormat) -> str:
    """What is the same of all examples, in words."""
    if isinstance(format, TextFormat):
        return f"{format.length} tokens at most, of a vocabulary of {format.vocabulary:,}"
    if isinstance(format, VolumeFormat):
        return f"{format.side} × {format.side} × {format.side} voxels"
    assert isinstance(format, ImageFormat)
    return f"{format.size} × {format.size} pixels, {'grey' if format.channels == 1 else 'colour'}"


def annotated(dataset: Dataset, facts: Mapping[str, int]) -> list[str]:
    """Sentences about masks, boxes and depth, and how volumes are shown; none where there are none."""
    told = [*(_annotated(dataset, facts) if dataset.truth else ()), *_deep(dataset, facts)]
    if isinstance(dataset.format, VolumeFormat):
        told.append("Pictures of a block are its middle axial slice, the front above, the right on the right.")
    return told


def _deep(dataset: Dataset, facts: Mapping[str, int]) -> Iterator[str]:
    if FIELD not in dataset.beside:
        return
    counts = {split: len(dataset.annotated_rows(split, FIELD)) for split in (POOL, TRAIN, TEST)}
    told = ", ".join(f"{count:,} {split}" for split, count in counts.items() if count)
    known = dataset.beside[FIELD]["known"]
    yield f"{sum(counts.values()):,} images have depth maps ({told}), with {100 * known:.1f} % of the pixels known."
    wrong = [f"{facts[key]:,} {words}" for key, words in DEPTH_FLAWS.items() if facts.get(key)]
    if wrong:
        yield f"{'; '.join(wrong)}: data/prepared/depth.csv."


def _annotated(dataset: Dataset, facts: Mapping[str, int]) -> Iterator[str]:
    truth, solid = dataset.truth, isinstance(dataset.format, VolumeFormat)
    assert truth
    for kind, words in ANNOTATED.items():
        counts = {split: len(dataset.annotated_rows(split, kind)) for split in (TRAIN, TEST)}
        if any(counts.values()):
            names = truth.pixel_classes if kind == "mask" else truth.thing_classes
            said = f"{counts[TRAIN]:,} {dataset.format.unit} to train on and {counts[TEST]:,} to test on have "
            if kind == "mask":
                has, parts = ("label volumes", "voxels") if solid else (words, "pixels")
                yield f"{said}{has}, of {len(names):,} classes of {parts}: {', '.join(names)}."
                continue
            things = truth.things(truth.rows(kind))
            labels = np.concatenate([np.empty(0, np.int64), *(one.labels[~one.ignored] for one in things)])
            of_class = np.bincount(labels, minlength=len(names)).tolist()
            empty = sum(not len(one.labels) for one in things)
            counted = summary(dict(zip(names, of_class, strict=True)))
            yield f"{said}{words}, of {counted}; {empty:,} of the {dataset.format.unit} show nothing."
    wrong = [f"{facts[key]:,} {words}" for key, words in FLAWS.items() if facts.get(key)]
    if wrong:
        yield f"{'; '.join(wrong)}: data/prepared/annotations.csv."
