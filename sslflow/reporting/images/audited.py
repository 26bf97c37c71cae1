"""What the audit of the data has found: sentences, and the worst of each kind to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import singular
from sslflow.drawing.embedded import Picture, image, picture
from sslflow.drawing.stills import stills
from sslflow.runtime.files import read_csv, read_json

SHOWN = 12
"""Pictures, or pairs of them, of each kind."""
WIDEST = 64
"""Pixels."""
UNSURE = 0.8
"""Share of the labels that a classifier tells, below which most of its suspicions are its own mistakes."""
ABOUT = {
    "blank": "nearly one value",
    "blurred": "far less sharp than the others",
    "dark": "far darker than the others",
    "bright": "far brighter than the others",
    "garish": "far more saturated than the others",
    "grey": "without colour, among coloured ones",
    "coloured": "with colour, among grey ones",
    "odd shape": "more than twice as wide or high as is usual here",
    "enlarged": "smaller than data.image_size",
}
"""Kinds of pictures that stand out."""


@dataclass(frozen=True)
class Shown:
    """A picture, or two beside each other, and words below."""

    pictures: list[Picture]
    words: str
    title: str


@dataclass(frozen=True)
class Kind:
    """What was found of a kind: how much, what it is, and the worst of it."""

    name: str
    words: str
    shown: list[Shown]


@dataclass(frozen=True)
class Section:
    """All of it; `warning` is what makes the accuracies of the report doubtful."""

    warning: str
    kinds: list[Kind]
    balance: str
    said: list[str]
    features: str


def section(dataset: Dataset) -> Section | None:
    """None where these images have not been looked at."""
    file, measured = paths.AUDIT / "audit.json", paths.metrics("audit")
    if not (file.exists() and measured.exists()):
        return None
    facts, metrics = read_json(file), read_json(measured)
    if (found := tables(dataset)) is None:
        return None
    leaks = [line for line in found["copies"] if line["leak"] == "yes"]
    others = [line for line in found["copies"] if line["leak"] == "no"]
    unit = dataset.format.unit
    leaked = int(metrics.get("leaked_near", 0))
    warning = (
        f"{leaked:,} of the {len(dataset.rows('test')):,} test {unit} look like copies of {unit} to learn from: "
        "where they are, accuracies flatter."
        if leaked
        else ""
    )
    kinds = [
        _pairs(
            dataset,
            f"near copies of test {unit}",
            f"one to learn from, and the test {singular(unit)} that it resembles",
            leaks,
        ),
        _pairs(dataset, "other near copies", "saved again, moved by a little, or of other brightness", others),
    ]
    for name in dict.fromkeys(line["kind"] for line in found["looks"]):
        lines = [line for line in found["looks"] if line["kind"] == name]
        words = f"{ABOUT[name]} (usual: {lines[0]['usual']})" if name != "enlarged" else ABOUT[name]
        kinds.append(_singles(dataset, name, words, lines, "{value}"))
    far = "far from their nearest neighbours, by cosine"
    kinds.append(_singles(dataset, "outliers", far, found["outliers"], "{distance}"))
    told = metrics.get("out_of_fold", 1.0)
    doubt = f"a linear classifier that never saw them is confident of another class; it tells {100 * told:.0f} % right"
    doubt += ", so that most of these are its own mistakes: look at the first" if told < UNSURE else ""
    kinds.append(_singles(dataset, "doubtful labels", doubt, found["suspects"], "{label} → {probable}?"))
    kinds = [kind for kind in kinds if kind.shown]
    return Section(warning, kinds, _balance(unit), facts["said"], facts["features"])


def tables(dataset: Dataset) -> dict[str, list[dict[str, str]]] | None:
    """The audit's tables of images; None where it has not been made, or was about others than these."""
    files = {name: paths.AUDIT / f"{name}.csv" for name in ("copies", "looks", "outliers", "suspects")}
    if not all(file.exists() for file in files.values()):
        return None
    found = {name: read_csv(file) for name, file in files.items()}
    return found if all(_is_of(dataset, lines) for lines in found.values()) else None


def _is_of(dataset: Dataset, lines: Sequence[dict[str, str]]) -> bool:
    """Whether the rows of a table are those images: others may have been prepared since."""
    rows = np.array([int(line["row"]) for line in lines], dtype=np.int64)
    if len(rows) and rows.max() >= len(dataset):
        return False
    return dataset.column("path", rows).tolist() == [line["path"] for line in lines]


def _pairs(dataset: Dataset, name: str, words: str, lines: Sequence[dict[str, str]]) -> Kind:
    shown = []
    for line in lines[:SHOWN]:
        labels = dict.fromkeys(filter(None, (line["label"], line["other_label"])))
        title = f"{line['path']} ({line['split']}), {line['other_path']} ({line['other_split']})"
        both = [_picture(dataset, line[key]) for key in ("row", "other_row")]
        shown.append(Shown(both, " / ".join(labels) or line["likeness"], title))
    return Kind(f"{len(lines):,} {name}", words, shown)


def _singles(dataset: Dataset, name: str, words: str, lines: Sequence[dict[str, str]], below: str) -> Kind:
    shown = [
        Shown([_picture(dataset, line["row"])], below.format_map(line), f"{line['path']} ({line['split']})")
        for line in lines[:SHOWN]
    ]
    return Kind(f"{len(lines):,} {name}", words, shown)


def _picture(dataset: Dataset, row: str) -> Picture:
    small = image(stills(dataset, np.array([int(row)]))[0])
    small.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    return picture(small, quality=85)


def _balance(unit: str) -> str:
    """The largest and the smallest class to train on, or nothing without classes."""
    counts = {line["class"]: int(line["train"]) for line in read_csv(paths.AUDIT / "classes.csv")}
    if len(counts) < 2:
        return ""
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    factor = f", a factor of {counts[most] / counts[least]:.1f}" if counts[least] else ""
    return (
        f"To train on, {most} has the most {unit} ({counts[most]:,}), {least} the fewest ({counts[least]:,}){factor}."
    )
