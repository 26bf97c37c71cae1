"""`sslflow compare`: runs side by side: what differs in them, and whether their scores do, image by image."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.commands.made import NEEDED, Made, open_run
from sslflow.evaluation.intervals import Interval, crossed
from sslflow.reporting.leaderboard import TITLES, is_accuracy, order, percent, row_title, title

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WIDEST = 40
"""Letters of a value in the table of what differs."""
SHORT = 12
"""Letters of a hash."""
ABSENT = "–"


@dataclass(frozen=True)
class Gap:
    """How far a run's score is from the first one's: an interval, or why there is none."""

    interval: Interval | None = None
    seeds: int = 0
    """Over which it is: those in common, or the fewer of both runs' where these have none in common."""
    why: str = ""
    note: str = ""
    """What is to be known of the interval."""


@dataclass(frozen=True)
class Line:
    """A score of all runs; None where a run doesn't have it. `gaps`: of all runs but the first."""

    row: str
    metric: str
    means: list[float | None]
    gaps: list[Gap]


Fetch = Callable[[str, list[Path], Path], None]
"""Copies files of a git revision or an experiment below a folder."""


def compare(names: Sequence[str], fetch: Fetch, *, as_json: bool = False) -> str:
    """Two or more runs, each named by its folder, or a revision that can be `fetch`ed, as a table or as JSON. Raises
    `ValueError` where one isn't a run, or has no scores yet."""
    if len(names) < 2:
        raise ValueError(f"{names[0]}: one run alone; name two or more, the one to compare with first")
    if len(names) > len(LETTERS):
        raise ValueError(f"{len(names)} runs: at most {len(LETTERS)} fit side by side")
    runs = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="sslflow-compare-") as copy:
            folder = Path(name)
            if revision := not folder.exists():
                fetch(name, NEEDED, folder := Path(copy))
                (folder / paths.ARTIFACTS).mkdir(exist_ok=True)
            runs.append(open_run(name, folder, revision=revision))
    return in_json(runs) if as_json else table(runs)


def differences(runs: Sequence[Made]) -> dict[str, list[Any]]:
    """What isn't the same in all runs: code, data, versions, machine, and settings by their dotted names. Of methods
    that not all have run, only that they did."""
    shared = set.intersection(*(set(one.card["methods"]) for one in runs))
    found: dict[str, list[Any]] = {}

    def add(name: str, values: list[Any]) -> None:
        if any(value != values[0] for value in values):
            found[name] = values

    add("code", [_code(one.card["code"]) for one in runs])
    add("data", [one.card["data"]["sha256"] for one in runs])
    add("images", [one.card["data"]["images"] for one in runs])
    for part in ("methods", "seeds"):
        add(part, [one.card[part] for one in runs])
    for part in ("params", "versions", "machine"):
        flat = [_flat(one.card[part]) for one in runs]
        for name in dict.fromkeys(name for values in flat for name in values):
            block, _, rest = name.partition(".")
            run_by_all = block != "methods" or rest.partition(".")[0] in shared
            if run_by_all and name not in ("run.methods", "run.seeds"):
                add(name if part == "params" else f"{part} {name}", [values.get(name, ABSENT) for values in flat])
    return found


def _code(code: Mapping[str, Any]) -> str:
    commit = code["commit"] or "not in git"
    return f"{commit} with changes" if code["changed"] else commit


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found


def lines(runs: Sequence[Made]) -> list[Line]:
    """All scores, in the order of the first run's leaderboard, and what only the others have after them."""
    rows = dict.fromkeys(row for one in runs for row in order(one.board))
    found = []
    for row in rows:
        metrics = dict.fromkeys(metric for one in runs for metric in one.board.get(row, {}))
        for metric in sorted(metrics, key=_place):
            means = [one.board.get(row, {}).get(metric, {}).get("mean") for one in runs]
            if metric != "side":
                found.append(Line(row, metric, means, [gap(runs[0], one, row, metric) for one in runs[1:]]))
    for name in dict.fromkeys(name for one in runs for name in one.scores):
        row, _, metric = name.partition(" ")
        why = [Gap(why="" if all(name in one.scores for one in pair) else ABSENT) for pair in _pairs(runs)]
        found.append(Line(row, metric, [one.scores.get(name) for one in runs], why))
    return found


def _pairs(runs: Sequence[Made]) -> list[tuple[Made, Made]]:
    return [(runs[0], one) for one in runs[1:]]


def _place(metric: str) -> tuple[int, str]:
    known = ("linear", "knn", "finetune", "rankme", "pretrain_seconds")
    return next((place for place, name in enumerate(known) if metric.startswith(name)), len(known)), metric


def gap(first: Made, second: Made, row: str, metric: str) -> Gap:
    """How far the second's accuracy is above the first's, over seeds and test images, in pairs. Seeds that both have
    are compared with each other; where they have none in common, every one with every other, as independent ones:
    their variances are added."""
    if any(metric not in one.board.get(row, {}) for one in (first, second)):
        return Gap(why=ABSENT)
    if not is_accuracy(metric):
        return Gap()
    ours, theirs = (one.answers.get((row, metric), {}) for one in (first, second))
    for one, answers in ((first, ours), (second, theirs)):
        if not answers:
            return Gap(why=f"no answers of {one.name} on the disk")
    both = sorted(ours.keys() & theirs.keys())
    before, after = ([one[seed] for seed in both or one] for one in (ours, theirs))
    keys = list(before[0])
    if any(set(answers) != set(keys) for answers in (*before, *after)):
        common = len(set(keys) & set(after[0]))
        return Gap(why=f"other test images: {common:,} in common of {len(keys):,} and {len(after[0]):,}")
    low, high = (np.array([[answers[key] for key in keys] for answers in one]) for one in (before, after))
    groups = np.unique([first.groups[key] for key in keys], return_inverse=True)[1]
    if not both:
        note = "no seed in common: seeds are taken for independent, only test images are in pairs"
        return Gap(crossed(high - low[:, None], groups), min(len(low), len(high)), note=note)
    counts = [int(one.board[row][metric]["n"]) for one in (first, second)]
    note = f"over seeds in common, {len(both)} of {counts[0]} and {counts[1]}; means are over all of each run"
    apart = high - low
    # Answers that are all the same are no estimate of other answers: these runs are alike.
    told = crossed(apart, groups) if apart.any() else Interval(0.0, 0.0, 0.0)
    return Gap(told, len(both), note=note if len(both) < max(counts) else "")


def in_json(runs: Sequence[Made]) -> str:
    """Everything that `table` says, for programs."""

    def told(one: Gap) -> dict[str, Any]:
        if not one.interval:
            return {"why": one.why or "no interval of this score"}
        found = one.interval
        return {
            "mean": found.mean,
            "low": found.low,
            "high": found.high,
            "sure": found.sure,
            "seeds": one.seeds,
            "note": one.note,
        }

    content = {
        "runs": [one.name for one in runs],
        "differences": differences(runs),
        "scores": [
            {"row": one.row, "metric": one.metric, "means": one.means, "gaps": [told(gap) for gap in one.gaps]}
            for one in lines(runs)
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def table(runs: Sequence[Made]) -> str:
    """All of it as text, for a terminal."""
    letters = LETTERS[: len(runs)]
    said = [f"{letter}  {one.name}" for letter, one in zip(letters, runs, strict=True)]
    different = differences(runs)
    if different:
        rows = [[name, *map(_value, values)] for name, values in different.items()]
        said += ["", *_aligned([["differs", *letters], *rows], str.ljust)]
    else:
        said += ["", "nothing differs in code, data, settings, versions and machine"]
    heads = [f"{letter} − A" for letter in letters[1:]]
    found, rows = lines(runs), []
    for one in found:
        named = next(run.board for run in runs if one.row in run.board or run is runs[-1])
        head = f"{row_title(named, one.row)}, {_title(one.metric)}"
        rows.append([head, *(_shown(one.metric, mean) for mean in one.means), *map(_gap, one.gaps)])
    said += ["", *_aligned([["score", *letters, *heads], *rows], str.rjust)]
    if any(is_accuracy(one.metric) for one in found):
        said += [
            "",
            "accuracy in % on the test images; differences in points, with their 95 % interval over seeds and test",
            "images, in pairs; ~: chance may explain it",
        ]
    notes = dict.fromkeys((head, gap.note) for one in found for head, gap in zip(heads, one.gaps, strict=True))
    said += [f"{head}: {note}" for head, note in notes if note]
    seeds = {gap.seeds for one in found for gap in one.gaps if gap.interval}
    if 1 in seeds:
        said.append("with one seed the interval is over test images alone: another seed may differ by more")
    return "\n".join(said)


def _title(metric: str) -> str:
    return title(metric) if is_accuracy(metric) or metric in TITLES else metric


def _shown(metric: str, value: float | None) -> str:
    if value is None:
        return ABSENT
    if is_accuracy(metric):
        return percent(value)
    return f"{value:.0f} s" if metric == "pretrain_seconds" else f"{value:.3g}"


def _gap(gap: Gap) -> str:
    if not gap.interval:
        return gap.why
    if gap.interval.mean == gap.interval.low == gap.interval.high == 0:
        return "the same "
    mean, low, high = (100 * value for value in (gap.interval.mean, gap.interval.low, gap.interval.high))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}){' ' if gap.interval.sure else '~'}"


def _value(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a hash
        return f"{value[:SHORT]}…"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _aligned(rows: Sequence[Sequence[str]], way: Callable[[str, int], str]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(way, row[1:], widths[1:])]).rstrip() for row in rows]
