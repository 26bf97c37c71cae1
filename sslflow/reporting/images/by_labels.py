"""Accuracy by the number of labels, drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

from sslflow.drawing.svg import colour
from sslflow.evaluation.intervals import Interval

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 42, 130, 10, 34
NAME = 20
"""Letters of a row's name beside its line."""


def chart(points: Mapping[str, Sequence[tuple[int, Interval]]], unit: str) -> Markup:
    """Accuracy by number of labels, which grows by factors; of each title a line, with its 95 % intervals."""
    counts = sorted({labels for line in points.values() for labels, _ in line})
    ends = [end for line in points.values() for _, told in line for end in (told.low, told.high)]
    low, high = max(0.0, math.floor(10 * min(ends)) / 10), min(1.0, math.ceil(10 * max(ends)) / 10)

    def across(labels: float) -> float:
        span = math.log(counts[-1] / counts[0]) or 1.0
        return LEFT + math.log(labels / counts[0]) / span * (WIDTH - LEFT - RIGHT)

    def down(share: float) -> float:
        return TOP + (high - min(max(share, low), high)) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    ends_at = "; ".join(f"{title} {100 * line[-1][1].mean:.1f} %" for title, line in points.items())
    words = escape(f"Accuracy of a linear classifier by number of labels; with all: {ends_at}")
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">']
    for tick in range(round(10 * low), round(10 * high) + 1):
        y = down(tick / 10)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{10 * tick} %</text>')
    for labels in spaced(counts, across):
        parts.append(f'<text x="{across(labels):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{labels:,}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">labelled {unit}</text>')
    places = apart([down(line[-1][1].mean) for line in points.values()], 12.0)
    for number, (title, line) in enumerate(points.items()):
        ink = colour(number, len(points))
        dots = [(across(labels), told) for labels, told in line]
        path = " ".join(f"{x:.1f},{down(told.mean):.1f}" for x, told in dots)
        parts.append(f'<polyline class="line" style="stroke:{ink}" points="{path}"/>')
        bars = "".join(f"M{x:.1f} {down(told.low):.1f}V{down(told.high):.1f}" for x, told in dots)
        parts.append(f'<path style="stroke:{ink};opacity:.5" d="{bars}"/>')
        name = title if len(title) <= NAME else f"{title[: NAME - 1]}…"
        x, y = WIDTH - RIGHT + 8, places[number] + 3.5
        parts.append(f'<text x="{x}" y="{y:.1f}" style="fill:{ink}">{escape(name)}</text>')
    return Markup("".join([*parts, "</svg>"]))  # titles, the only text from outside, are escaped above


def spaced(counts: Sequence[int], across: Callable[[float], float], gap: float = 34.0) -> list[int]:
    """Those of the numbers that stand far enough apart to be read, the last among them."""
    kept = [counts[-1]]
    for labels in reversed(counts[:-1]):
        if across(kept[-1]) - across(labels) >= gap:
            kept.append(labels)
    return kept[::-1]


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Places moved down as little as keeps each `gap` from the one above it."""
    moved: dict[int, float] = {}
    last = -math.inf
    for number in sorted(range(len(places)), key=lambda one: places[one]):
        last = moved[number] = max(places[number], last + gap)
    return [moved[number] for number in range(len(places))]
