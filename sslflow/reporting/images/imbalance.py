"""Where classes to train on differ in size: how well large and small ones are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sslflow.data.classes import shown
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.intervals import Interval, crossed
from sslflow.evaluation.shots import gap_over_classes, over_classes, shots, spread_terms
from sslflow.reporting import leaderboard
from sslflow.reporting.answers import Answers

RATIO = 2.0
"""Of the largest to the smallest class to train on, from which on they are looked at apart."""
METRIC = "linear"
NAMED = 6
"""Classes of a group that are named."""


def section(board: leaderboard.Board, answers: Answers, dataset: Dataset, best: str) -> dict[str, Any] | None:
    """What the page shows; None where classes are about of one size, or no row has been probed."""
    sizes = class_sizes(dataset, TRAIN)
    held = {label: size for label, size in sizes.items() if size}
    if len(held) < 2 or max(held.values()) < RATIO * min(held.values()):
        return None
    tested = class_sizes(dataset, TEST)
    groups = {
        name: found for name, classes in shots(held).items() if (found := [one for one in classes if tested[one]])
    }
    everything = [label for label in held if tested[label]]
    columns = {**groups, "all": everything}
    rows = [(name, found) for name in leaderboard.order(board) if (found := answers.of_seeds(name, METRIC))]
    if not rows or not groups:
        return None
    lines = []
    for name, (tests, right) in rows:
        actual, things = dataset.labels[tests], answers.groups[tests]
        cells = [_cell(over_classes(right, actual, things, classes)) for classes in columns.values()]
        cells.append(_cell(crossed(spread_terms(right, actual, everything), things)))
        lines.append((leaderboard.row_title(board, name), leaderboard.is_control(name), cells))
    return {
        "about": _about(dataset, held, [label for label, size in sizes.items() if not size]),
        "said": list(_said(board, answers, dataset, best, groups)),
        "heads": [*columns, "spread"],
        "lines": lines,
        "groups": [(name, _described(dataset, held, tested, classes)) for name, classes in groups.items()],
    }


def class_sizes(dataset: Dataset, split: str) -> dict[int, int]:
    """Label of each class → labelled images in the split."""
    counts = np.bincount(dataset.labels[dataset.labelled_rows(split)], minlength=len(dataset.classes))
    return dict(enumerate(counts.tolist()))


def _about(dataset: Dataset, held: dict[int, int], without: Sequence[int]) -> str:
    most, least = max(held, key=held.__getitem__), min(held, key=held.__getitem__)
    left = f" Not among them: {shown(dataset.classes[label] for label in without)}, with none." if without else ""
    return (
        f"Classes to train on differ in size: {dataset.classes[most]} has {held[most]:,} labelled "
        f"{dataset.format.unit}, {dataset.classes[least]} {held[least]:,}, a factor of "
        f"{held[most] / held[least]:.1f}.{left}"
    )


def _said(
    board: leaderboard.Board, answers: Answers, dataset: Dataset, best: str, groups: dict[str, list[int]]
) -> list[str]:
    """How far the best method is above each control in the smallest classes."""
    name = list(groups)[-1]
    said = []
    for other in leaderboard.order(board):
        found = answers.differences(best, other, METRIC) if leaderboard.is_control(other) else None
        if not found:
            continue
        tests, differences = found
        gap = gap_over_classes(differences, dataset.labels[tests], answers.groups[tests], groups[name])
        sure = "" if gap.sure else ", which may be chance"
        said.append(
            f"{100 * abs(gap.mean):.1f} points {'above' if gap.mean >= 0 else 'below'} "
            f"{leaderboard.row_title(board, other)} (95 %: {100 * gap.low:+.1f} to {100 * gap.high:+.1f}{sure})"
        )
    return [f"In the classes with the fewest {dataset.format.unit} {best} is {'; '.join(said)}."] if said else []


def _described(dataset: Dataset, held: dict[int, int], tested: dict[int, int], classes: list[int]) -> str:
    ordered = sorted(classes, key=lambda label: -held[label])
    most, least = held[ordered[0]], held[ordered[-1]]
    trained = f"{most:,} to {least:,}" if most > least else f"{most:,}"
    count = "1 class" if len(classes) == 1 else f"{len(classes)} classes of"
    names = shown((dataset.classes[label] for label in ordered), NAMED)
    return (
        f"{count} {'of ' if len(classes) == 1 else ''}{trained} {dataset.format.unit} to train on, "
        f"{sum(tested[label] for label in classes):,} test {dataset.format.unit}: {names}."
    )


def _cell(told: Interval) -> tuple[str, str]:
    return f"{100 * told.mean:.1f}", _span(told)


def _span(told: Interval) -> str:
    return f"{100 * told.low:.1f} to {100 * told.high:.1f}"
