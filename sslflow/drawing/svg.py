"""Drawings in the page's colours, as SVG: points on a map, and two histograms back to back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

BINS = 40
SIDE = 320
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 20, 24
PALETTE = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1"),
    *("#76b7b2", "#d4a800", "#ff6f91", "#9c755f", "#8a8f98"),
)

INK = "var(--ink)"
LETTERS = 12
"""Of a name on a map: of a longer one, the beginning."""


@dataclass(frozen=True)
class Points:
    """Points of one kind, `(n, 2)` in the unit square, with what they are called, and their looks."""

    name: str
    places: np.ndarray
    colour: str
    faint: bool = False
    named: bool = False
    """Whether the name stands on the map, in their middle."""


def colour(number: int, count: int) -> str:
    """Of the group `number` among `count`, as on the map of the features."""
    if count <= len(PALETTE):
        return PALETTE[number]
    return f"hsl({number * 137.508 % 360:.0f} 62% {48 + number % 3 * 8}%)"


def scatter(kinds: Sequence[Points], label: str) -> Markup:
    """Points on a square, later kinds on top; `label` is what a screen reader says."""
    parts = [f'<svg class="scatter" viewBox="-20 -20 1040 1040" role="img" aria-label="{escape(label)}">']
    for kind in kinds:
        path = "".join(f"M{x} {y}h0" for x, y in np.rint(kind.places * 1000).astype(int))
        faint = ' class="faint"' if kind.faint else ""
        parts.append(f'<path{faint} style="stroke:{escape(kind.colour)}" d="{path}"/>')
    for kind in kinds:
        if kind.named and len(kind.places):
            x, y = np.rint(np.median(kind.places, axis=0) * 1000).astype(int)
            name = kind.name if len(kind.name) <= LETTERS else f"{kind.name[: LETTERS - 1]}…"
            margin = 12 * len(name)  # half of its width, so that no name is cut at the border
            x = min(max(x, margin), 1000 - margin)
            parts.append(f'<text x="{x}" y="{y + 12}" text-anchor="middle">{escape(name)}</text>')
    return Markup("".join([*parts, "</svg>"]))  # names from outside are escaped above


def histograms(bars: Mapping[str, np.ndarray], threshold: float | None, label: str) -> Markup:
    """How many values in [0, 1] are how large, for one kind or two, the second upside down under the first; the names
    of `bars` are CSS classes. A line at the `threshold`, where it lies between 0 and 1. Heights are square roots of
    counts, so that small bars are seen."""
    counts = [np.histogram(np.clip(values, 0, 1), BINS, (0, 1))[0] for values in bars.values()]
    tallest = [float(np.sqrt(max(1, int(count.max())))) for count in counts]
    unit = (SIDE - TOP - BOTTOM) / sum(tallest)
    zero = TOP + tallest[0] * unit

    def across(value: float) -> float:
        return LEFT + value * (SIDE - LEFT - RIGHT)

    parts = [f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{escape(label)}">']
    for name, count, direction in zip(bars, counts, (-1, 1), strict=False):
        highest = int(count.max())
        for mark in sorted({highest, _round(highest / 4)} - {0}):
            y = zero + direction * mark**0.5 * unit
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{SIDE - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{mark:g}</text>')
        path = "".join(
            f"M{across(place / BINS) + 0.5:.1f} {zero:.1f}v{direction * value**0.5 * unit:.1f}"
            f"h{across(1 / BINS) - LEFT - 1:.1f}V{zero:.1f}z"
            for place, value in enumerate(count)
            if value
        )
        parts.append(f'<path class="bars {name}" d="{path}"/>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{SIDE - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>')
    for tick in (0, 0.25, 0.5, 0.75, 1):
        anchor = "end" if tick == 1 else "middle"
        parts.append(f'<text x="{across(tick):.1f}" y="{SIDE - 7}" text-anchor="{anchor}">{tick:g}</text>')
    if threshold is not None and 0 <= threshold <= 1:
        x, anchor = across(threshold), "end" if threshold > 0.6 else "start"
        parts.append(f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{SIDE - BOTTOM}"/>')
        parts.append(
            f'<text class="strong" x="{x + (4 if anchor == "start" else -4):.1f}" y="{TOP - 8}" '
            f'text-anchor="{anchor}">rejected above {threshold:.2f}</text>'
        )
    return Markup("".join([*parts, "</svg>"]))


def _round(value: float) -> int:
    """A whole number of one digit and zeros, near `value`."""
    size = 10 ** max(0, len(str(int(value))) - 1)
    return int(value // size * size)
