"""The audit of a data set, as tables of what was found, the worst first, and sentences about what it means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from sslflow.audit.copies import families, near_copies
from sslflow.audit.features import reduced
from sslflow.audit.looks import ODD, Look, extremes, odd, survey
from sslflow.audit.neighbours import nearest
from sslflow.audit.suspects import out_of_fold, suspects
from sslflow.data.classes import shown
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat, singular
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN
from sslflow.runtime.rng import permutation
from sslflow.settings.params import Count, Fraction

IMAGE = ("row", "path", "split", "label")
COLUMNS = {
    "copies": (*IMAGE, "other_row", "other_path", "other_split", "other_label", "likeness", "leak", "family"),
    "looks": (*IMAGE, "kind", "value", "usual"),
    "outliers": (*IMAGE, "distance", "usual"),
    "suspects": (*IMAGE, "probable", "margin"),
    "classes": ("class", TRAIN, TEST, POOL),
}
"""Of each table."""
MIXED = {
    "grey": "are grey",
    "coloured": "have colours",
    "enlarged": "are smaller than data.image_size and were enlarged",
    "odd shape": "are more than twice as wide or high as is usual",
}
"""What is said of kinds that make a set a mixed one, where they are many."""
USUAL = 0.1
"""Share of the images from which on that is so."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What is looked for: pairs of images from `likeness` on, outliers by the mean distance to so many `neighbours`,
    wrong labels by a classifier in so many `folds`; of more than `most` images a random sample is compared."""

    likeness: Fraction = 0.98
    neighbours: Count = 10
    folds: Annotated[int, Ge(2)] = 5
    most: Count = 100_000


@dataclass
class Found:
    """What an audit has found."""

    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    """By name, with `COLUMNS`."""
    metrics: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    """What could not be looked at, and why; what is so of many images."""


def audit(dataset: Dataset, features: Callable[[np.ndarray], Tensor], device: torch.device, asked: Audit) -> Found:
    """Look at all prepared images; `features` gives those of rows, `(n, dim)`."""
    found = Found()
    rows = np.arange(len(dataset))
    if len(rows) > asked.most:
        found.said.append(
            f"A random {asked.most:,} of the {len(rows):,} {dataset.format.unit} were compared; "
            "audit.most is how many may be."
        )
        rows = np.sort(permutation(len(rows), 0, "audit").numpy()[: asked.most])
    found.metrics["images"] = len(rows)
    _classes(dataset, found)
    if not len(rows):
        found.said.append(f"There are no {dataset.format.unit} to look at.")
        return found
    looks, small = survey(dataset, rows)
    stand_out: list[Look] = []
    if isinstance(dataset.format, ImageFormat):
        widths, heights = (dataset.column(name, rows) for name in ("width", "height"))
        stand_out = odd(looks, widths, heights, dataset.format.size, dataset.format.channels)
        found.metrics["sizes"] = len(set(zip(widths.tolist(), heights.tolist(), strict=True)))
    kinds = Counter(one.kind for one in stand_out)
    found.metrics |= {kind.replace(" ", "_"): count for kind, count in kinds.items()}
    mixed = {kind for kind, count in kinds.items() if kind in MIXED and count > max(1, USUAL * len(rows))}
    found.said += [
        f"{kinds[kind]:,} of {len(rows):,} images {MIXED[kind]}: the set is mixed, and they are not listed one by one."
        for kind in sorted(mixed)
    ]
    found.tables["looks"] = [
        (*_image(dataset, rows[one.place]), one.kind, f"{one.value:.4g}", f"{one.usual:.4g}")
        for one in stand_out
        if one.kind not in mixed
    ]
    known, finite = reduced(features, rows)
    if not finite.all():
        (path,) = dataset.column("path", rows[~finite][:1])
        found.said.append(
            f"Features of {(~finite).sum():,} {dataset.format.unit} are NaN or infinite "
            f"(the first: {path}): they are no outliers and "
            "their labels are not judged; other weights, or extract.precision: fp32, may know them."
        )
    found.metrics["not_finite"] = int((~finite).sum())
    blank = torch.from_numpy(looks.blank)
    _copies(dataset, rows, small, known, blank, asked, found)
    _outliers(dataset, rows, known, finite & ~looks.blank, asked, found)
    _suspects(dataset, rows, known.to(device), finite & ~looks.blank, asked, found)
    return found


def _image(dataset: Dataset, row: Any) -> tuple[int, str, str, str]:
    at = np.array([row])
    label = int(dataset.labels[row])
    name = dataset.classes[label] if label != NO_LABEL else ""
    return int(row), str(dataset.column("path", at)[0]), str(dataset.column("split", at)[0]), name


def _classes(dataset: Dataset, found: Found) -> None:
    """How many images of each class each split has, the largest class first."""
    if not dataset.classes:
        found.said.append("There are no labels: neither the balance of classes nor wrong labels can be looked at.")
        return
    counts = np.stack(
        [
            np.bincount(dataset.labels[dataset.labelled_rows(split)], minlength=len(dataset.classes))
            for split in (TRAIN, TEST, POOL)
        ],
        axis=1,
    )
    order = np.argsort(-counts.sum(axis=1), kind="stable").tolist()
    found.tables["classes"] = [(dataset.classes[one], *counts[one].tolist()) for one in order]
    trained = counts[:, 0]
    if trained.min() > 0:
        found.metrics["imbalance"] = float(trained.max() / trained.min())


def _copies(
    dataset: Dataset, rows: np.ndarray, small: Tensor, known: Tensor, blank: Tensor, asked: Audit, found: Found
) -> None:
    """Near duplicates. An image to train on may be in the pool as well, and is no copy there."""
    splits = dataset.column("split", rows)
    if not (splits == TEST).any():
        found.said.append(
            f"There are no test {dataset.format.unit}: copies of them among the others can't be looked for."
        )
    groups = torch.from_numpy(dataset.groups[rows])
    pairs = [
        pair
        for pair in near_copies(small, groups, known, blank, likeness=asked.likeness)
        if {splits[pair[0]], splits[pair[1]]} != {TRAIN, POOL}
    ]
    family = families(len(rows), pairs)
    for a, b, likeness in pairs:
        if splits[a] == TEST:
            a, b = b, a
        leak = splits[b] == TEST and splits[a] != TEST
        found.tables["copies"].append(
            (
                *_image(dataset, rows[a]),
                *_image(dataset, rows[b]),
                f"{likeness:.4f}",
                "yes" if leak else "no",
                int(rows[family[a]]),
            )
        )
    leaks = [line for line in found.tables["copies"] if line[9] == "yes"]
    found.metrics |= {
        "near_copies": len(pairs),
        "families": len({family[a] for a, _, _ in pairs}),
        "leaked_near": len({line[4] for line in leaks}),
        "contradicting": sum(bool(line[3] and line[7] and line[3] != line[7]) for line in found.tables["copies"]),
    }


def _outliers(dataset: Dataset, rows: np.ndarray, known: Tensor, good: np.ndarray, asked: Audit, found: Found) -> None:
    places = np.flatnonzero(good)
    if len(places) <= asked.neighbours:
        found.said.append(
            f"{len(places)} {dataset.format.unit} have features: "
            f"too few to call one an outlier by its {asked.neighbours} nearest "
            "(audit.neighbours)."
        )
        return
    near, _ = nearest(known[torch.from_numpy(places)], torch.arange(len(places)), asked.neighbours)
    distance = (1 - near).mean(dim=1).numpy()
    deviation, usual = extremes(distance, np.ones(len(distance), dtype=bool))
    far = np.flatnonzero(deviation > ODD)
    far = far[np.argsort(-distance[far], kind="stable")]
    found.tables["outliers"] = [
        (*_image(dataset, rows[places[one]]), f"{distance[one]:.4f}", f"{usual:.4f}") for one in far.tolist()
    ]
    found.metrics["outliers"] = len(far)


def _suspects(dataset: Dataset, rows: np.ndarray, known: Tensor, good: np.ndarray, asked: Audit, found: Found) -> None:
    if not dataset.classes:
        return
    labels = dataset.labels[rows]
    counts = np.bincount(labels[good & (labels != NO_LABEL)], minlength=len(dataset.classes))
    alone = [dataset.classes[one] for one in np.flatnonzero(counts == 1).tolist()]
    if alone:
        found.said.append(
            f"One {singular(dataset.format.unit)} tells nothing of its label: not judged are those of {shown(alone)}."
        )
    judged = np.flatnonzero(good & (labels != NO_LABEL) & (counts[labels] > 1))
    kinds = np.unique(labels[judged])
    if len(kinds) < 2:
        found.said.append(
            f"Wrong labels can't be looked for: it takes two classes of two {dataset.format.unit} each, and there "
            f"{'is' if len(kinds) == 1 else 'are'} {len(kinds)}."
        )
        return
    own = np.searchsorted(kinds, labels[judged])
    x, y = known[torch.from_numpy(judged).to(known.device)], torch.from_numpy(own).to(known.device)
    probabilities = out_of_fold(x, y, len(kinds), folds=asked.folds)
    places, likely, margin = suspects(probabilities, own)
    found.tables["suspects"] = [
        (*_image(dataset, rows[judged[place]]), dataset.classes[kinds[one]], f"{gap:.4f}")
        for place, one, gap in zip(places.tolist(), likely.tolist(), margin.tolist(), strict=True)
    ]
    found.metrics |= {
        "suspects": len(places),
        "judged": len(judged),
        "out_of_fold": float((probabilities.argmax(axis=1) == own).mean()),
    }
