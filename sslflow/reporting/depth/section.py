"""The section about depth: does pretraining, on depth or on images alone, pay for it, and what does it look like?"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sslflow import paths
from sslflow.drawing.depths import ERROR, NEAR_TO_FAR, coloured
from sslflow.drawing.embedded import Picture, picture
from sslflow.drawing.overlay import enlarged
from sslflow.examination.depth.found import Way
from sslflow.reporting.depth.rows import NAMES, TITLES, Rows, points, title
from sslflow.runtime.tables import read_parquet

SIDE = 144
"""Pixels of a tile, about."""
EACH = 4
"""Images of a kind."""
WORST = 0.5
"""Error as a share of the depth that has the darkest colour."""


@dataclass(frozen=True)
class Example:
    """A test image: tiles with their titles, words below, and its name."""

    tiles: list[tuple[str, Picture]]
    caption: str
    name: str


def section(rows: Rows) -> dict[str, Any] | None:
    """What the page shows; None where no row has been made."""
    if not rows.names():
        return None
    fractions = rows.fractions()
    way, best = _best(rows, fractions[-1])
    return {
        "said": list(sentences(rows)),
        "heads": list(TITLES.values()),
        "blocks": [(f"{share(fraction)} of the depth maps", list(rows.lines(fraction))) for fraction in fractions],
        "absent": rows.absent(),
        "tests": f"{len(rows.found.rows):,}",
        "best": title(best, rows.methods),
        "way": f"{NAMES[way.protocol]}, with {share(way.fraction)} of the depth maps",
        "examples": examples(rows, way, best),
        "worst": f"{100 * WORST:.0f}",
    }


def share(fraction: float) -> str:
    """`10 %`."""
    return f"{100 * fraction:g} %"


def _best(rows: Rows, fraction: float) -> tuple[Way, str]:
    """The best row with so many maps, fine-tuned where rows are, and how it was made."""
    for protocol in ("tuned", "frozen", "mean"):
        way = Way(protocol, fraction)
        if name := rows.best(rows.methods, way) or rows.best(rows.asked, way):
            return way, name
    raise AssertionError("there are rows")


def sentences(rows: Rows) -> Iterator[str]:
    """For each way and share the best method, and how far it is from the other methods and from the controls."""
    for protocol in ("frozen", "tuned"):
        for fraction in rows.fractions():
            way = Way(protocol, fraction)
            best = rows.best(rows.methods, way)
            over = rows.found.over(best, "abs_rel", way) if best else None
            if not over:
                continue
            others = [(name, way) for name in rows.asked if name != best and way in rows.found.ways(name)]
            others += [("mean", Way("mean", fraction))] if "mean" in rows.asked else []
            gaps = [
                f"{points(gap)} {title(name, rows.methods).removesuffix(', weights that exist')}"
                for name, other in others
                if (gap := rows.found.gap((best, way), (name, other), "abs_rel"))
            ]
            far = f"{best} is off by {100 * over.mean:.1f} % of the depth{': ' if gaps else ''}{'; '.join(gaps)}"
            yield f"Depth, {NAMES[protocol]}, with {share(fraction)} of the maps: {far}."
    if len(rows.found.seeds) == 1:
        yield "One seed: the intervals know of test images, and not of how far another training would differ."


def examples(rows: Rows, way: Way, name: str) -> list[tuple[str, list[Example]]]:
    """The best, the middle and the worst test images of those whose maps a row kept, by its first seed."""
    seed, found = rows.seed_with(name, way), rows.found
    told = _kept(rows, name, seed, way)
    errors = found.images(name, seed, "abs_rel", way)
    assert errors is not None
    of_row = dict(zip(found.rows.tolist(), errors.tolist(), strict=True))
    order = sorted(told, key=lambda row: of_row[row])
    middle = max(0, len(order) // 2 - EACH // 2)
    chosen = {"Best": order[:EACH], "Middle": order[middle : middle + EACH], "Worst": order[-EACH:]}
    if len(order) < 3 * EACH:
        chosen = {"From the best to the worst": order}
    return [
        (words, [_example(rows, row, told[row], of_row[row]) for row in own]) for words, own in chosen.items() if own
    ]


def _kept(rows: Rows, name: str, seed: int, way: Way) -> dict[int, np.ndarray]:
    """Predicted maps in metres, by row."""
    file = rows.found.root / paths.depths(name, seed) / "maps.parquet"
    if not file.exists():
        return {}
    table = read_parquet(file)
    columns = zip(*(table[column].to_pylist() for column in ("protocol", "fraction", "row", "map")), strict=True)
    asked = set(rows.found.rows.tolist())
    return {
        row: np.asarray(Image.open(io.BytesIO(content)), np.float64) / 1000
        for protocol, fraction, row, content in columns
        if (protocol, float(f"{fraction:.6g}")) == way and row in asked
    }


def _example(rows: Rows, row: int, told: np.ndarray, error: float) -> Example:
    dataset = rows.found.dataset
    fields = dataset.read(np.array([row]))
    pixels, true = fields["images"][0].numpy(), fields["depth"][0, 0].numpy().astype(np.float64)
    known, every = true > 0, np.ones_like(true, bool)
    ends = float(true[known].min()), float(true[known].max())
    off = np.abs(told - true) / np.where(known, true, 1.0)
    tiles = {
        "image": enlarged(pixels, SIDE),
        "depth": coloured(true, known, ends, NEAR_TO_FAR, SIDE),
        "prediction": coloured(told, every, ends, NEAR_TO_FAR, SIDE),
        "error": coloured(off, known, (0.0, WORST), ERROR, SIDE),
    }
    (name,) = dataset.column("path", np.array([row]))
    caption = f"{ends[0]:.1f} to {ends[1]:.1f} m; off by {100 * error:.1f} % of the depth"
    return Example([(words, picture(tile, quality=88)) for words, tile in tiles.items()], caption, name)
