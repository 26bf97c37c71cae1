"""Localisation without labels: how often a thing is where an encoder's map stands out most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.drawing.embedded import Picture, picture
from sslflow.drawing.overlay import Frame, framed, pointed
from sslflow.drawing.svg import PALETTE
from sslflow.evaluation.intervals import Interval, crossed, of_share
from sslflow.examination.where.found import Found
from sslflow.reporting.amounts import percent
from sslflow.reporting.where.masks import SIDE
from sslflow.reporting.where.rows import Rows, seeds_in_words, signed, title, verdict
from sslflow.runtime.rng import permutation
from sslflow.runtime.tables import read_parquet

SHOWN = 8
"""Images."""
MARKED = 4
"""Rows whose places are drawn."""
BESIDE = {"centre": "above the centre", "pixels": "above the pixels"}
"""What a row is compared with, and what that column is called."""


@dataclass(frozen=True)
class Pointed:
    """One run's places in the test images that show something."""

    rows: np.ndarray
    """Rows of the images."""
    places: np.ndarray
    """float `(n, 2)`: x and y of the place that stands out most, in pixels."""
    found: dict[str, np.ndarray]
    """float `(n,)`, in [0, 1]: whether a thing is there (`hit`), in the image's `centre`, and where the `pixels`
    themselves stand out most; how much of the image things have `covered`."""


def section(rows: Rows, names: Sequence[str], seed: int) -> dict[str, Any] | None:
    """The hit rates and some images; None where no run has looked."""
    read = {name: [*runs.values()] for name in names if (runs := read_all(rows.found, name))}
    if not read:
        return None
    first = next(iter(read.values()))[0]
    groups = rows.found.dataset.groups[first.rows]
    lines = []
    for name, runs in read.items():
        own = {kind: np.stack([one.found[kind] for one in runs]) for kind in first.found}
        told = of_share(own["hit"], groups)
        gaps = [crossed(own["hit"] - own[kind], groups) for kind in BESIDE]
        cells = [(signed(gap), verdict(gap)) for gap in gaps]
        lines.append(
            (title(name, rows.methods), name not in rows.methods, percent(told.mean), _behind(told, len(runs)), cells)
        )
    return {
        "lines": lines,
        "heads": list(BESIDE.values()),
        "images": len(first.rows),
        "rates": {kind: percent(float(values.mean())) for kind, values in first.found.items()},
        "pictures": _pictures(rows, read, seed),
        "key": [(title(name, rows.methods), PALETTE[number]) for number, name in enumerate(list(read)[:MARKED])],
    }


def read_all(found: Found, name: str) -> dict[int, Pointed]:
    """Seed → places, of the seeds that have looked at all test images of today that show something."""
    if not found.dataset.truth:
        return {}
    rows = found.rows("map")
    rows = rows[[not one.ignored.all() for one in found.dataset.truth.things(rows)]]
    files = {seed: found.root / paths.detected(name, seed) / "localised.parquet" for seed in found.seeds}
    runs = {seed: _read(file) for seed, file in files.items() if file.exists()}
    return {seed: one for seed, one in runs.items() if len(rows) and np.array_equal(one.rows, rows)}


def _read(file: Path) -> Pointed:
    table = read_parquet(file).sort_by("row")
    found = {kind: table[kind].to_numpy().astype(np.float64) for kind in ("hit", "centre", "pixels", "covered")}
    return Pointed(table["row"].to_numpy(), np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1), found)


def _behind(told: Interval, seeds: int) -> str:
    return f"95 %: {100 * told.low:.1f} to {100 * told.high:.1f}; {seeds_in_words(seeds)}"


def _pictures(rows: Rows, read: dict[str, list[Pointed]], seed: int) -> list[tuple[Picture, str]]:
    """Some images by chance with their known boxes and the places of the first run of some rows."""
    first, dataset = next(iter(read.values()))[0], rows.found.dataset
    assert dataset.truth
    chosen = np.sort(permutation(len(first.rows), seed, "report", "localised").numpy()[:SHOWN])
    pixels = dataset.read(first.rows[chosen])["images"].numpy()
    things, names = dataset.truth.things(first.rows[chosen]), dataset.column("path", first.rows[chosen])
    found = []
    for place, own, known, name in zip(chosen.tolist(), pixels, things, names, strict=True):
        boxes = [Frame(box, "", "#ffffff") for box in known.boxes[~known.ignored].tolist()]
        shown = np.asarray(framed(own, boxes, SIDE)).transpose(2, 0, 1)
        times = shown.shape[-1] / own.shape[-1]
        rings = [
            (float(times * x), float(times * y), PALETTE[number])
            for number, runs in enumerate(list(read.values())[:MARKED])
            for x, y in [runs[0].places[place]]
        ]
        found.append((picture(pointed(shown, rings, shown.shape[-1]), quality=88), str(name)))
    return found
