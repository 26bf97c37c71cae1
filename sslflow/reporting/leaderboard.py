"""The leaderboard: what every method of the run reached, over its seeds, beside the control rows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sslflow import paths
from sslflow.reporting.amounts import duration, percent
from sslflow.reporting.answers import RETRIEVAL, START, Answers, fraction_name, tuned_columns
from sslflow.runtime.files import read_json, write_csv, write_json, write_metrics

Summary = dict[str, float]
Board = dict[str, dict[str, Summary]]

PARTS = ("mean", "std", "n", "low", "high", "above", "above_low", "above_high", "top")
"""Of a cell: see `collect` and `compared`."""

_TUNED = re.compile(r"finetune_[0-9.]+pct")

RAW = {"pixels": "raw pixels", "words": "bag of words", "voxels": "raw voxels"}
"""Rows of examples themselves as features, of each kind of data."""
CONTROLS = {
    "random": "random weights",
    **RAW,
    "scratch": "from scratch",
    "supervised": "supervised, all labels",
}
ENERGY = ("pretrain_wh", "pretrain_gpu_wh")
COSTS = ("pretrain_seconds", *ENERGY)
ASIDE = ("recall1", "recall5", *ENERGY)
"""Metrics that stand elsewhere on the page, so that the leaderboard can be read."""
TITLES = {
    "linear": "linear",
    "knn": "kNN",
    "map": "mAP",
    "recall1": "R@1",
    "recall5": "R@5",
    "finetune": "fine-tuned",
    "rankme": "RankMe",
    "pretrain_seconds": "pretraining",
    "pretrain_wh": "pretraining, Wh",
    "pretrain_gpu_wh": "pretraining, Wh of the GPU",
}


def fractions_of(methods: Sequence[str], seeds: Sequence[int]) -> list[float]:
    """The shares of the labels with which the runs named, and the control, were fine-tuned, by their metrics: the main
    one, which is that of the first setting, then the others, largest first."""
    runs = (paths.run_name(method, seed) for method in (*methods, "scratch") for seed in seeds)
    found = [read_json(file) for file in (paths.metrics("finetune", run) for run in runs) if file.exists()]
    names = {name for metrics in found for name in metrics if _TUNED.fullmatch(name)}
    main = next((metrics["first_fraction"] for metrics in found if "first_fraction" in metrics), None)
    shares = (float(f"{float(name[9:-3]) / 100:.6g}") for name in names)
    return sorted(shares, key=lambda share: (share != main, -share))


def is_control(name: str) -> bool:
    """Whether a row is there to be beaten: not of a method, but of what costs no training of one's own, or labels."""
    return name in CONTROLS or name.startswith(START)


def collect(
    methods: Sequence[str], seeds: Sequence[int], fractions: Sequence[float] = (), starts: Sequence[str] = ()
) -> Board:
    """Mean, sample standard deviation (0 for one seed) and count of every metric that the runs named have written.

    `{"simclr": {"linear": {"mean": 0.84, "std": 0.01, "n": 2}, …}, "start lite0": …, "random": …, "pixels": …,
    "scratch": …}`; `starts` are names of weights that exist. Accuracies are fractions in [0, 1], times seconds,
    energies watt-hours. `finetune` is the first of the labelled `fractions`; `side`, of `pixels`, is what larger images
    were reduced to. What was not measured (no labels, for example) is absent. Files of methods and seeds that are not
    named are not read.
    """
    tuned = {file: shown for shown, file in tuned_columns(fractions).items()}
    probed = {metric: metric for metric in ("linear", "knn", *RETRIEVAL)}
    energy = dict(zip(("energy_wh", "energy_gpu_wh"), ENERGY, strict=True))
    trained = {"rankme": "rankme", "seconds": "pretrain_seconds", **energy}
    board = {
        method: {
            **_summaries("probe", method, seeds, probed),
            **_summaries("finetune", method, seeds, tuned),
            **_summaries("pretrain", method, seeds, trained),
        }
        for method in methods
    }
    for name in starts:
        board[START + name] = {
            **_summaries("probe", name, seeds, probed),
            **_summaries("finetune", name, seeds, tuned),
        }
    board["random"] = _summaries("probe", "random", seeds, probed)
    board |= {name: _summaries("probe", name, seeds, {**probed, "side": "side"}) for name in RAW}
    board["scratch"] = _summaries("finetune", "scratch", seeds, tuned)
    return {name: row for name, row in board.items() if row}


def compared(board: Board, answers: Answers, starts: Mapping[str, str]) -> Board:
    """The board with what can be trusted of its accuracies: `low` and `high`, the 95 % interval over seeds and test
    images, and for methods `above`, `above_low` and `above_high`, the distance to their control and its interval, in
    pairs. The control is the weights that a method `starts` from, `random` or named, fine-tuned on their own where it
    is about that. `top` is 1 for the best of an accuracy, and for what differs from it by no more than chance of seeds
    and test images may explain, else 0."""
    tops = {metric: _top(board, metric, answers) for metric in metric_names(board)}
    found: Board = {}
    for name, row in board.items():
        found[name] = {}
        for metric, cell in row.items():
            cell = dict(cell)
            if is_accuracy(metric):
                cell["top"] = float(name in tops[metric])
            if is_accuracy(metric) and (over := answers.over(name, metric)):
                cell |= {"low": max(0.0, over.low), "high": min(1.0, over.high)}
                control = control_of(metric, starts.get(name, "random"))
                if not is_control(name) and (gap := answers.gap(name, control, metric)):
                    cell |= {"above": gap.mean, "above_low": gap.low, "above_high": gap.high}
            found[name][metric] = cell
    return found


def control_of(metric: str, start: str) -> str:
    """The row that a method which starts from the weights has to beat in a metric."""
    if start != "random":
        return START + start
    return "scratch" if metric.startswith("finetune") else "random"


def write_board(board: Board, file: Path = paths.LEADERBOARD) -> None:
    """Write the board as JSON, and beside it as CSV: a line for each row, the same columns for each metric. Its
    accuracies, or RankMe where there are no labels, go to `paths.SCORES` as well, means alone, a small file for each
    row: what DVC shows as metrics."""
    write_json(file, board)
    paths.SCORES.mkdir(parents=True, exist_ok=True)
    labelled = any(is_accuracy(metric) for row in board.values() for metric in row)
    for name, row in board.items():
        own = {metric: cell for metric, cell in row.items() if metric not in ASIDE}
        shown = {metric: cell["mean"] for metric, cell in own.items() if is_accuracy(metric) == labelled}
        write_scores(name, {metric: mean for metric, mean in shown.items() if metric not in COSTS})
    columns = metric_names(board)
    header = ["name", *(f"{column}_{part}" for column in columns for part in PARTS)]
    rows = (
        [name, *(board[name].get(column, {}).get(part, "") for column in columns for part in PARTS)]
        for name in order(board)
    )
    write_csv(file.with_suffix(".csv"), header, rows)


def write_scores(name: str, scores: dict[str, float]) -> None:
    """A row of DVC's metrics, to three decimals; none where nothing was measured."""
    if scores:
        write_metrics(
            paths.SCORES / f"{name.replace(' ', '-')}.json",
            {metric: round(score, 3) for metric, score in scores.items()},
        )


def order(board: Board) -> list[str]:
    """Rows from best to worst (by linear accuracy, then kNN, then fine-tuning), the controls after the methods."""

    def score(name: str) -> tuple[float, ...]:
        return tuple(board[name].get(metric, {}).get("mean", -1.0) for metric in ("linear", "knn", "finetune"))

    ranked = sorted(board, key=score, reverse=True)
    methods, starts = [one for one in ranked if not is_control(one)], [one for one in ranked if one.startswith(START)]
    return [*methods, *starts, *(name for name in CONTROLS if name in board)]


def row_title(board: Board, name: str) -> str:
    """What a row is called: a method by its name, a control in words, with the side of the pixels where images were
    reduced to it."""
    if name == "pixels" and (side := board.get(name, {}).get("side")):
        return f"pixels ({side['mean']:.0f} × {side['mean']:.0f})"
    return f"{name.removeprefix(START)}, as it came" if name.startswith(START) else CONTROLS.get(name, name)


def metric_names(board: Board) -> list[str]:
    """The metrics that any row has, in the order in which they are shown."""
    present = {metric for row in board.values() for metric in row}
    smaller = sorted(
        (metric for metric in present if metric.startswith("finetune_")),
        key=lambda metric: -float(metric.removeprefix("finetune_").removesuffix("pct")),
    )
    shown = ["linear", "knn", *RETRIEVAL, "finetune", *smaller, "rankme", *COSTS]
    return [metric for metric in shown if metric in present]


def main_metrics(board: Board) -> list[str]:
    """Those of the metrics that stand in the leaderboard itself."""
    return [metric for metric in metric_names(board) if metric not in ASIDE]


def best(board: Board, metric: str) -> set[str]:
    """The rows, controls included, that `compared` has found to be the best in an accuracy. RankMe and time have no
    best."""
    return {name for name, row in board.items() if row.get(metric, {}).get("top")}


def _top(board: Board, metric: str, answers: Answers) -> set[str]:
    """The rows with the highest mean of an accuracy, and those whose distance to it may be chance; where answers are
    missing, those that equal it to one decimal of a percent."""
    means = {name: row[metric]["mean"] for name, row in board.items() if metric in row}
    if not is_accuracy(metric) or len(means) < 2:
        return set()
    highest = max(means, key=lambda name: means[name])

    def beaten(name: str) -> bool:
        gap = answers.gap(highest, name, metric)
        return gap.sure if gap else round(means[name], 3) < round(means[highest], 3)

    return {name for name in means if not beaten(name)}


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a mean over test images of what lies between 0 and 1, shown in percent."""
    return metric in ("linear", "knn", *RETRIEVAL) or metric.startswith("finetune")


def title(metric: str, first_fraction: float | None = None) -> str:
    """The heading of a metric's column; `first_fraction` is the labelled share behind `finetune`."""
    if metric == "finetune" and first_fraction is not None:
        metric = fraction_name(first_fraction)
    if metric.startswith("finetune_"):
        return f"fine-tuned {metric.removeprefix('finetune_').removesuffix('pct')} %"
    return TITLES[metric]


def shown(metric: str, summary: Summary | None) -> str:
    """`84.1 ± 0.3`, `37.2 ± 1.1`, `3 min 12 s ± 2 s`, `84.1` for a single seed, or a dash for what was not measured."""
    if not summary:
        return "–"
    if metric == "pretrain_seconds":
        return duration(summary["mean"])
    scale = 100 if is_accuracy(metric) else 1
    spread = f" ± {scale * summary['std']:.1f}" if summary["n"] > 1 else ""
    mean = percent(summary["mean"]) if is_accuracy(metric) else f"{summary['mean']:.1f}"
    return f"{mean}{spread}"


def trusted(summary: Summary | None) -> str:
    """What is behind a number: `95 %: 80.1 to 84.0; above its control by 3.0 to 7.9`; empty where nothing is known."""
    if not summary or "low" not in summary:
        return ""
    said = f"95 %: {100 * summary['low']:.1f} to {100 * summary['high']:.1f}"
    if "above" in summary:
        said += f"; above its control by {100 * summary['above_low']:.1f} to {100 * summary['above_high']:.1f}"
    return said


def seeds_of(row: dict[str, Summary]) -> str:
    """Over how many seeds a row was measured: `2`, or `1–2` where some of its numbers rest on fewer."""
    counts = {int(summary["n"]) for summary in row.values()}
    return "–".join(map(str, sorted({min(counts), max(counts)})))


def leaderboard_text(board: Board, unit: str = "images") -> str:
    """The board as an aligned plain-text table with a line that tells how to read it, for a terminal or a log."""
    if not board:
        return "leaderboard: nothing has been measured yet"
    metrics = main_metrics(board)
    best_rows = {metric: best(board, metric) for metric in metrics}
    table = [["", *(title(metric) + " " for metric in metrics), "seeds"]]
    for name in order(board):
        row = board[name]
        cells = [shown(m, row.get(m)) + ("*" if name in best_rows[m] else " ") for m in metrics]
        table.append([row_title(board, name), *cells, seeds_of(row)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *_right(row[1:], widths[1:])]).rstrip() for row in table]
    rule = "-" * max(map(len, lines))
    methods = sum(not is_control(name) for name in board)
    lines[1:1] = [rule]
    if methods < len(board):
        lines.insert(2 + methods, rule.replace("-", "·"))
    return "\n".join(["leaderboard", *lines, rule, _legend(metrics, methods < len(board), unit)])


def _legend(metrics: Sequence[str], controls: bool, unit: str) -> str:
    if not any(map(is_accuracy, metrics)):
        return "no accuracies: without labels they can't be measured; RankMe: directions that the features use"
    found = "accuracy, and mAP of retrieval," if "map" in metrics else "accuracy"
    words = f"{found} in % on the test {unit}, mean ± standard deviation over the seeds"
    words += "; below the dots: the controls to beat" if controls else ""
    return f"{words}\n* best, or so near to it that chance of seeds and test {unit} may explain the difference"


def _right(cells: Iterable[str], widths: Iterable[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _summaries(stage: str, name: str, seeds: Sequence[int], keys: dict[str, str]) -> dict[str, Summary]:
    """The metrics of one row: `keys` maps names in the stage's files to names on the board."""
    files = [paths.metrics(stage, paths.run_name(name, seed)) for seed in seeds]
    found = [read_json(file) for file in files if file.exists()]
    values = {shown: [metrics[key] for metrics in found if key in metrics] for key, shown in keys.items()}
    return {shown: _summary(measured) for shown, measured in values.items() if measured}


def _summary(values: list[float]) -> Summary:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "n": len(values)}
