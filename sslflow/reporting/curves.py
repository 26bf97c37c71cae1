"""Training curves: read from the runs' files, merged into one table, drawn as SVG in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup, escape

from sslflow import paths
from sslflow.runtime.files import read_csv, write_csv

SHOWN = {
    "loss": ("Loss", "what the method minimises; its height can't be compared across methods"),
    "feature_std": ("Feature std", "spread of the features; a fall to 0 is a collapse"),
    "rankme": ("RankMe", "how many directions the features use"),
    "alpha_req": ("alpha-ReQ", "how fast the features' spectrum falls; about 1 is good, much more is few directions"),
    "alignment": ("Alignment", "squared distance of two views of the same, of features of length 1"),
    "uniformity": ("Uniformity", "how evenly features of length 1 cover the sphere; lower is more evenly"),
    "projection_rankme": ("RankMe of projections", "the same of what the loss sees: a collapse begins there"),
}
WIDTH, HEIGHT = 320, 176
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 10, 24
OF_ITS_OWN = ("loss",)
"""What has another scale with each method."""
POINTS = 240
ACROSS, CAPTION = 3, 20
STYLE = (
    "text{font:11px sans-serif;fill:#58626d}.title{font-size:13px;fill:#1c2229}.grid{stroke:#dfe3e8}"
    ".line{fill:none;stroke:#1a5fb4;stroke-width:1.6}.dot{fill:#1a5fb4}"
)
"""Of a poster, which has no page to take its colours from."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Frame:
    """Size of a drawing in pixels, and where its axes end, where that isn't left to the lines in it."""

    width: int = WIDTH
    height: int = HEIGHT
    right: float = 0.0
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panels:
    """A quantity: a small drawing for each method that has it, its seeds as lines, all with the same axes."""

    title: str
    meaning: str
    drawn: list[tuple[str, Markup]]


SMALL = Frame(216, 132)
"""Of a panel: two fit beside each other on a phone."""


def read_curve(file: Path) -> list[dict[str, str]]:
    """The rows of a curve file, by column, as text; none where there is no file."""
    if not file.exists():
        return []
    return read_csv(file, ["step"])


def merge(methods: Sequence[str], seeds: Sequence[int], file: Path) -> int:
    """Write the curves of all runs named to one CSV (run, step, and a column for each chart); returns its rows."""
    rows = [
        [paths.run_name(method, seed), row["step"], *(row.get(column, "") for column in SHOWN)]
        for method in methods
        for seed in seeds
        for row in read_curve(paths.curve(method, seed))
    ]
    write_csv(file, ["run", "step", *SHOWN], rows)
    return len(rows)


def charts(method: str, seeds: Sequence[int], root: Path = paths.ARTIFACTS) -> list[tuple[str, str, Markup]]:
    """Title, explanation and drawing of each diagnostic that the method's curves hold, a line for each seed."""
    return drawings(method, {seed: read_curve(paths.curve(method, seed, root)) for seed in seeds})


def drawings(method: str, curves: Mapping[int, list[dict[str, str]]]) -> list[tuple[str, str, Markup]]:
    """The same of the rows of curves, by seed."""
    drawn = []
    for column, (title, meaning) in SHOWN.items():
        lines = {seed: points(rows, column) for seed, rows in curves.items()}
        lines = {seed: line for seed, line in lines.items() if line}
        if lines:
            drawn.append((title, meaning, line_chart(lines, f"{title} of {method} by step")))
    return drawn


def panels(methods: Sequence[str], seeds: Sequence[int], root: Path = paths.ARTIFACTS) -> list[Panels]:
    """Every quantity that a curve of the methods holds, as small multiples."""
    curves = {method: {seed: read_curve(paths.curve(method, seed, root)) for seed in seeds} for method in methods}
    found = []
    for column, (title, meaning) in SHOWN.items():
        lines = {
            method: {seed: line for seed, rows in of_seed.items() if (line := points(rows, column))}
            for method, of_seed in curves.items()
        }
        lines = {method: of_seed for method, of_seed in lines.items() if of_seed}
        if not lines:
            continue
        every = [point for of_seed in lines.values() for line in of_seed.values() for point in line]
        values = [y for _, y in every]
        span = None if column in OF_ITS_OWN else (min(values), max(values))
        frame = replace(SMALL, right=max(x for x, _ in every), span=span)
        drawn = [(name, line_chart(one, f"{title} of {name} by step", frame)) for name, one in lines.items()]
        found.append(Panels(title, meaning, drawn))
    return found


def poster(drawn: Sequence[tuple[str, str, Markup]]) -> str:
    """The drawings of `drawings` in one SVG that needs no page around it, three across, each below its title."""
    height, parts = HEIGHT + CAPTION, []
    for place, (title, _, drawing) in enumerate(drawn):
        x, y = place % ACROSS * WIDTH, place // ACROSS * height
        parts.append(f'<text x="{x + LEFT}" y="{y + 14}" class="title">{escape(title)}</text>')
        inner = f'<svg x="{x}" y="{y + CAPTION}" width="{WIDTH}" height="{HEIGHT}"'
        parts.append(f"{inner}{drawing.removeprefix('<svg')}")
    wide, high = min(len(drawn), ACROSS) * WIDTH, -(-len(drawn) // ACROSS) * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>'
    )


def points(rows: list[dict[str, str]], column: str) -> Points:
    """The finite values of a column by step, at most about `POINTS` of them: each the mean of its neighbours."""
    found: Points = []
    for row in rows:
        value = float(row.get(column) or "nan")
        if math.isfinite(value):
            found.append((float(row["step"]), value))
    size = -(-len(found) // POINTS) or 1
    chunks = [found[start : start + size] for start in range(0, len(found), size)]
    return [(_mean(x for x, _ in chunk), _mean(y for _, y in chunk)) for chunk in chunks]


def line_chart(lines: dict[int, Points], label: str, frame: Frame = Frame()) -> Markup:
    """An SVG with a line for each seed; `label` is what a screen reader says, followed by where each line ends."""
    width, height = frame.width, frame.height
    xs = [frame.right, *(x for line in lines.values() for x, _ in line)]
    ys = [*(frame.span or ()), *(y for line in lines.values() for _, y in line)]
    x_ticks, y_ticks = [tick for tick in ticks(0, max(xs)) if tick <= max(xs)], ticks(min(ys), max(ys))
    low, high, right = min(y_ticks[0], *ys), max(y_ticks[-1], *ys), max(xs) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / right * (width - LEFT - RIGHT)
        return across, TOP + (high - y) / (high - low) * (height - TOP - BOTTOM)

    ends = "; ".join(f"seed {seed} ends at {line[-1][1]:.4g}" for seed, line in lines.items())
    words = escape(f"{label}: {ends}")
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">']
    for tick in y_ticks:
        _, y = place(0, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_ticks if width >= WIDTH else (x_ticks[0], x_ticks[-1]):
        x, _ = place(tick, low)
        anchor = "end" if x > width - 24 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{height - 7}" text-anchor="{anchor}">{_number(tick)}</text>')
    for number, line in enumerate(lines.values()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        if len(line) == 1:
            x, y = place(*line[0])
            parts.append(f'<circle class="dot s{number % 6}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
        else:
            parts.append(f'<polyline class="line s{number % 6}" points="{path}"/>')
    parts.append("</svg>")
    return Markup("".join(parts))  # the only text from outside, the label, is escaped above


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that span [low, high]; around a single value, one on each side of it."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(multiple * size for multiple in (1, 2, 2.5, 5, 10) if multiple * size >= rough)
    return [step * number for number in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 10):g}"


def _mean(values: Iterator[float]) -> float:
    every = list(values)
    return sum(every) / len(every)
