"""What labels are worth: accuracy by their number for every row, how many a method saves, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TRAIN
from sslflow.evaluation.efficiency import Fit, read_few, read_tuned
from sslflow.evaluation.intervals import Interval, of_share
from sslflow.evaluation.savings import Curve, Needed, needed
from sslflow.reporting import leaderboard
from sslflow.reporting.answers import START, Answers
from sslflow.reporting.images.by_labels import chart
from sslflow.settings.params import NonNegative


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a `label` costs, an `hour` of the device, and a `kwh` beside the hour, where the energy of training is
    known; all in the same money."""

    label: NonNegative = 0.05
    hour: NonNegative = 1.0
    kwh: NonNegative = 0.0


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard with few labels."""

    name: str
    title: str
    curve: Curve
    each: dict[tuple[str, int], np.ndarray]
    """`linear` or `knn`, and the labels of each class, to right answers `(seeds, draws, n)`."""
    rows: np.ndarray
    """The test images."""


def section(
    board: leaderboard.Board, answers: Answers, dataset: Dataset, best: str, prices: Prices
) -> dict[str, Any] | None:
    """What the page shows; None where nothing was probed with few labels."""
    found = [row for name in leaderboard.order(board) if (row := _row(board, name, answers, dataset))]
    if not found:
        return None
    method = next((row for row in found if row.name == best), None)
    others = [row for row in found if leaderboard.is_control(row.name)]
    tables, said, energy, of_gpu = [], [], None, None
    if method:
        seconds = board[best].get("pretrain_seconds", {}).get("mean", 0.0)
        energy, of_gpu = (board[best].get(metric, {}).get("mean") for metric in leaderboard.ENERGY)
        for other in others:
            if np.array_equal(other.rows, method.rows):
                table = _needs(method, other, answers)
                tables.append((other.title, table))
                said.append(sentence(method.title, other.title, table, seconds, prices, energy))
    return {
        "chart": chart({row.title: points(row, answers) for row in found}, dataset.format.unit),
        "others": [title for title, _ in tables],
        "lines": lines(tables),
        "each": few_of_each(board, found, answers),
        "said": said,
        "method": method.title if method else "",
        "energy": energy_sentence(energy, of_gpu),
    }


def sentence(
    ours: str,
    theirs: str,
    table: Sequence[tuple[int, Needed]],
    seconds: float,
    prices: Prices,
    energy: float | None = None,
) -> str:
    """Whether training was worth it beside a row, at the largest number of labels at which both can be compared;
    `energy`: that of training, in watt-hours, where it is known."""
    reached = [one for one in table if math.isfinite(one[1].labels)]
    if not reached:
        labels, other = table[0]
        sure = "No number of labels here replaces it" if other.low > labels else "It may be chance"
        return f"{theirs}: with all the labels there are it is not as good as {ours} with {labels:,}. {sure}."
    labels, other = reached[-1]
    saved = other.labels - labels
    span = f"{_number(other.low)} to {_number(other.high)}"
    first = f"{theirs}: for what {ours} does with {labels:,} labels it needs {_number(other.labels)} ({span})"
    power = (energy or 0.0) / 1000 * prices.kwh
    cost = seconds / 3600 * prices.hour + power
    if other.high <= labels or saved <= 0:
        return f"{first}. Not worth it here: it needs no more labels than {ours}."
    worth = f"{saved:,.0f} labels at {prices.label:g} each are {saved * prices.label:,.2f}"
    trained = f"training took {leaderboard.duration(seconds)}, {cost - power:,.2f} at {prices.hour:g} an hour"
    if energy is not None and prices.kwh:
        trained += f", and {energy:,.1f} Wh, {power:,.2f} at {prices.kwh:g} a kWh"
    pays = f"it pays from {max(cost / saved, 0.0001):.4f} a label on"
    if other.low <= labels:
        return f"{first}, which may be chance: {worth}; {trained}."
    if saved * prices.label <= cost:
        return f"{first}. Not worth it here: {worth}; {trained}; {pays}."
    return f"{first}. Worth it: {worth}; {trained}; {pays}."


def energy_sentence(energy: float | None, of_gpu: float | None = None) -> str:
    """How much energy training took, in watt-hours, and of what it is, or that nobody knows; `of_gpu`: the GPU's part,
    where there is one."""
    if energy is None:
        return (
            "Energy of training: not read. The machine counts none, its counters are for root alone, or several "
            "processes shared the work."
        )
    processors = "the processors that it ran on" if of_gpu is None else "the processors and GPU that it ran on"
    source = "the GPU alone (what the processors took can't be read)" if of_gpu == energy else processors
    return f"Energy of training: {energy:,.1f} Wh a run, of {source}, with all else there."


def points(row: Row, answers: Answers) -> list[tuple[int, Interval]]:
    """Accuracy of a row by number of labels."""
    groups = answers.groups[row.rows]
    return [(labels, of_share(right, groups)) for labels, right in zip(row.curve.labels, row.curve.right, strict=True)]


def _row(board: leaderboard.Board, name: str, answers: Answers, dataset: Dataset) -> Row | None:
    """A row's accuracies with few labels and with all, where every seed has them for the same images."""
    few, rows = [], None
    for seed in answers.seeds:
        file = paths.few(name.removeprefix(START), seed)
        if not file.exists():
            continue
        asked, found = read_few(file)
        full = answers.right(name, seed, "linear")
        if not found or full is None or (rows is not None and not np.array_equal(asked, rows)):
            continue
        rows = asked
        few.append((found, full))
    if rows is None:
        return None
    found = [found for found, _ in few]
    right = [_stacked(found, "linear", "share", labels) for labels in _numbers(found[0], "linear", "share")]
    labels = _numbers(found[0], "linear", "share")
    everything = np.stack([full[None] for _, full in few])
    curve = Curve((*labels, len(dataset.labelled_rows(TRAIN))), (*map(np.asarray, right), everything))
    each = {
        (probe, number): _stacked(found, probe, "each", number)
        for probe in ("linear", "knn")
        for number in _numbers(found[0], probe, "each")
    }
    return Row(name, leaderboard.row_title(board, name), curve, each, rows)


def _numbers(found: Mapping[Fit, np.ndarray], probe: str, way: str) -> list[int]:
    return sorted({labels for own, how, labels, _ in found if (own, how) == (probe, way)})


def _stacked(found: Sequence[Mapping[Fit, np.ndarray]], probe: str, way: str, labels: int) -> np.ndarray:
    """Right answers, `(seeds, draws, n)`."""
    draws = sorted({draw for *kind, draw in found[0] if kind == [probe, way, labels]})
    return np.stack([[one[probe, way, labels, draw] for draw in draws] for one in found])


def _needs(method: Row, other: Row, answers: Answers) -> list[tuple[int, Needed]]:
    groups = answers.groups[method.rows]
    return [
        (labels, needed(other.curve, method.curve, place, groups)) for place, labels in enumerate(method.curve.labels)
    ]


def few_of_each(board: leaderboard.Board, rows: Sequence[Row], answers: Answers) -> dict[str, Any]:
    """Accuracies with a few labels of every class, in percent with their 95 % interval, of probes and of encoders that
    were fine-tuned on them: the heads of the columns, and a line for each row."""
    probed = {row.name: row for row in rows}
    found: dict[str, dict[tuple[str, int], str]] = {}
    for name in leaderboard.order(board):
        cells = {}
        if row := probed.get(name):
            cells = {kind: _spread(right, answers.groups[row.rows]) for kind, right in row.each.items()}
        if cells := {**cells, **_tuned(name, answers)}:
            found[name] = cells
    places = ("linear", "knn", "finetune")
    kinds = sorted({kind for cells in found.values() for kind in cells}, key=lambda kind: (places.index(kind[0]), kind))
    return {
        "heads": [f"{leaderboard.title(probe)}, {number} a class" for probe, number in kinds],
        "lines": [
            (leaderboard.row_title(board, name), [cells.get(kind, "–") for kind in kinds])
            for name, cells in found.items()
        ],
    }


def _tuned(name: str, answers: Answers) -> dict[tuple[str, int], str]:
    """Accuracies after fine-tuning on a few labels of every class; none where seeds have them for different images."""
    read = [read_tuned(paths.tuned(name.removeprefix(START), seed)) for seed in answers.seeds]
    read = [one for one in read if one[1]]
    if not read or any(not np.array_equal(rows, read[0][0]) or own.keys() != read[0][1].keys() for rows, own in read):
        return {}
    found, groups = [own for _, own in read], answers.groups[read[0][0]]
    numbers = _numbers(found[0], "finetune", "each")
    return {("finetune", number): _spread(_stacked(found, "finetune", "each", number), groups) for number in numbers}


def _spread(right: np.ndarray, groups: np.ndarray) -> str:
    told = of_share(right, groups)
    return f"{100 * told.mean:.1f} ({100 * told.low:.1f} to {100 * told.high:.1f})"


def _number(labels: float) -> str:
    return f"{labels:,.0f}" if math.isfinite(labels) else "more than all"


def shown(needs: Needed) -> str:
    """`1,210 (890 to 1,700)`; `more than all` where that is so of the whole interval."""
    if not math.isfinite(needs.low):
        return _number(needs.low)
    return f"{_number(needs.labels)} ({_number(needs.low)} to {_number(needs.high)})"


def lines(tables: Sequence[tuple[str, Sequence[tuple[int, Needed]]]]) -> list[tuple[int, list[str]]]:
    """A line for each number of labels: what each of the other rows needs."""
    if not tables:
        return []
    return [(labels, [shown(table[place][1]) for _, table in tables]) for place, (labels, _) in enumerate(tables[0][1])]
