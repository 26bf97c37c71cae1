"""Localisation without labels: how often the place where an encoder's map is highest lies in a known box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.data.truth import Things
from sslflow.drawing.embedded import Picture, picture
from sslflow.drawing.overlay import Frame, framed, pointed
from sslflow.drawing.svg import PALETTE
from sslflow.evaluation.intervals import Interval, crossed, of_share
from sslflow.reporting.amounts import percent
from sslflow.reporting.where.masks import SIDE
from sslflow.reporting.where.rows import Rows, signed, title, verdict
from sslflow.runtime.rng import permutation
from sslflow.runtime.tables import read_parquet

SHOWN = 8
"""Images."""
MARKED = 4
"""Rows whose places are drawn."""


@dataclass(frozen=True)
class Pointed:
    """One run's places: rows of the test images, the highest place of each map, and whether it, and the image's centre,
    lie in a known box."""

    rows: np.ndarray
    places: np.ndarray
    """float `(n, 2)`: column and row, in pixels."""
    hit: np.ndarray
    centre: np.ndarray


def section(rows: Rows, names: Sequence[str], seed: int) -> dict[str, Any] | None:
    """The hit rates and some images; None where no run has looked."""
    read = {name: _read_all(rows, name) for name in names}
    read = {name: runs for name, runs in read.items() if runs}
    if not read:
        return None
    first = next(iter(read.values()))[0]
    groups = rows.found.dataset.groups[first.rows]
    truth = rows.found.dataset.truth
    assert truth
    things = truth.things(first.rows)
    lines = []
    for name, runs in read.items():
        hits, centre = (np.stack([getattr(one, kind) for one in runs]).astype(np.float64) for kind in ("hit", "centre"))
        told, gap = of_share(hits, groups), crossed(hits - centre, groups)
        lines.append((title(name, rows.methods), name not in rows.methods, _cell(told), signed(gap), verdict(gap)))
    area = float(np.mean([covered(one, rows.found.dataset.format.size) for one in things]))
    return {
        "lines": lines,
        "centre": percent(float(first.centre.mean())),
        "chance": percent(area),
        "images": len(first.rows),
        "pictures": _pictures(rows, read, things, seed),
        "key": [(title(name, rows.methods), PALETTE[number]) for number, name in enumerate(list(read)[:MARKED])],
    }


def covered(things: Things, size: int) -> float:
    """Share of an image that lies in one of its known boxes: how often a random point does."""
    inside = np.zeros((size, size), bool)
    middles = np.arange(size) + 0.5
    for left, top, right, bottom in things.boxes[~things.ignored].tolist():
        inside |= ((middles >= top) & (middles < bottom))[:, None] & ((middles >= left) & (middles < right))[None]
    return float(inside.mean())


def _read_all(rows: Rows, name: str) -> list[Pointed]:
    files = [paths.detected(name, seed) / "localised.parquet" for seed in rows.found.seeds]
    found = [_read(file) for file in files if file.exists()]
    tested = rows.found.rows("map")
    return (
        found
        if found and all(np.isin(one.rows, tested).all() and np.array_equal(one.rows, found[0].rows) for one in found)
        else []
    )


def _read(file: Path) -> Pointed:
    table = read_parquet(file).sort_by("row")
    columns = {name: table[name].to_numpy() for name in ("row", "x", "y", "hit", "centre")}
    return Pointed(columns["row"], np.stack([columns["x"], columns["y"]], axis=1), columns["hit"], columns["centre"])


def _cell(told: Interval) -> tuple[str, str]:
    return percent(told.mean), f"95 %: {100 * told.low:.1f} to {100 * told.high:.1f}"


def _pictures(
    rows: Rows, read: dict[str, list[Pointed]], things: Sequence[Things], seed: int
) -> list[tuple[Picture, str]]:
    """Some images by chance with their known boxes and the places of the first run of some rows."""
    first = next(iter(read.values()))[0]
    filled = np.flatnonzero([(~one.ignored).any() for one in things])
    chosen = np.sort(filled[permutation(len(filled), seed, "report", "localised").numpy()[:SHOWN]])
    pixels = rows.found.dataset.read(first.rows[chosen])["images"].numpy()
    names = rows.found.dataset.column("path", first.rows[chosen])
    found = []
    for place, own, name in zip(chosen.tolist(), pixels, names, strict=True):
        boxes = [Frame(box, "", "#ffffff") for box in things[place].boxes.tolist()]
        shown = np.asarray(framed(own, boxes, SIDE)).transpose(2, 0, 1)
        times = shown.shape[-1] / own.shape[-1]
        rings = [
            (*(times * runs[0].places[place]).tolist(), PALETTE[number])
            for number, runs in enumerate(list(read.values())[:MARKED])
        ]
        found.append((picture(pointed(shown, rings, shown.shape[-1]), quality=88), str(name)))
    return found
