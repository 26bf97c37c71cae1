"""The headline: what the numbers say, in plain words, from the leaderboard alone."""

from __future__ import annotations

from collections.abc import Sequence

from sslflow.evaluation.intervals import Interval
from sslflow.reporting.answers import START, Answers, fraction_name
from sslflow.reporting.leaderboard import (
    RAW,
    Board,
    Summary,
    is_accuracy,
    is_control,
    main_metrics,
    order,
    percent,
    row_title,
    title,
)


def labelled(board: Board) -> bool:
    """Whether any accuracy was measured."""
    return any(is_accuracy(metric) for row in board.values() for metric in row)


def best_method(board: Board, methods: Sequence[str]) -> str:
    """The method at the top of the board, or the first that is run, where nothing ranks them; `""` where there is none
    for images."""
    ranked = [name for name in order(board) if not is_control(name)]
    return ranked[0] if ranked and labelled(board) else next(iter(methods), "")


def headline(
    board: Board, methods: Sequence[str], has_labels: bool, answers: Answers | None = None, unit: str = "images"
) -> str:
    """One sentence with the best method and its accuracy, or why there is none; `has_labels`: whether the data have;
    `unit`: what examples are called. Where there are `answers`, distances come with their 95 % interval."""
    if not methods:
        return "What was learnt from pictures and sounds of videos"
    if not labelled(board):
        count = "1 method" if len(methods) == 1 else f"{len(methods)} methods"
        if has_labels:
            return f"{count}, not probed yet."
        return f"{count} trained. No labels: how good the features are can be looked at here, but not measured."
    best = best_method(board, methods)
    metric = next((m for m in ("linear", "knn", "finetune") if m in board.get(best, {})), None)
    if metric is None:
        return f"{best} has not been probed yet."
    words = {"linear": "a linear classifier on its frozen features", "knn": "kNN on its frozen features"}
    measured = words.get(metric, "fine-tuned, it")
    summary = board[best][metric]
    first = f"{best}: {measured} is right on {_percent(summary)} of the test {unit}"
    starts = [name for name in order(board) if name.startswith(START) and metric in board[name]]
    controls = _to_beat(board, starts, [name for name in ("random", *RAW) if metric in board.get(name, {})], metric)
    gaps = []
    for control in controls:
        known = control in starts
        told = f"{control.removeprefix(START)}, frozen as it came" if known else row_title(board, control)
        between = answers.gap(best, control, metric) if answers else None
        gaps.append(_gap(summary, board[control][metric], told, between))
    said = first + (f", {' and '.join(gaps)}." if gaps else ".")
    if starts and board[starts[0]][metric]["mean"] > summary["mean"]:
        between, name = answers.gap(best, starts[0], metric) if answers else None, starts[0].removeprefix(START)
        if between and not between.sure:
            return f"{said} Nothing trained here is surely better than {name}, which needs no training: take that."
        said += f" Nothing that was trained here is better than {name}: take that."
    return said


def _to_beat(board: Board, starts: Sequence[str], plain: Sequence[str], metric: str) -> list[str]:
    """The controls that the headline names: those that know nothing, `plain`, or weights that exist, with the highest
    plain one where it is above these: to be above weights that don't suit the data is little."""
    if not starts:
        return list(plain)
    highest = max(plain, key=lambda name: board[name][metric]["mean"], default=None)
    if highest and board[highest][metric]["mean"] > max(board[name][metric]["mean"] for name in starts):
        return [*starts, highest]
    return list(starts)


def remarks(
    board: Board,
    methods: Sequence[str],
    fractions: Sequence[float],
    has_labels: bool,
    answers: Answers | None = None,
) -> list[str]:
    """Sentences below the headline: fine-tuning, how sure the order of the methods is, what to beware of."""
    if not methods:
        return []
    if not labelled(board):
        return (
            []
            if has_labels
            else [
                "Look at the curves, the neighbours and the clusters below. For numbers, label some images, which "
                "`sslflow select` proposes, and name their table in data.labels; or name a labelled set as "
                "data.probe_source in params.yaml."
            ]
        )
    ranked = [name for name in order(board) if not is_control(name) and "linear" in board[name]]
    sentences = _tuning(board, best_method(board, methods), fractions, answers)
    if len(ranked) > 1:
        sentences.append(_lead(board, ranked[0], ranked[1], answers))
    control = board.get("random", {}).get("linear")
    for name in ranked:
        if control and board[name]["linear"]["mean"] <= control["mean"]:
            sentences.append(
                f"Beware: {name} does not beat random weights ({_percent(board[name]['linear'])} against "
                f"{_percent(control)}): a linear classifier finds no more in its features than in those of a "
                "network that has learnt nothing."
            )
    return sentences


def _lead(board: Board, first: str, second: str, answers: Answers | None) -> str:
    """How far the best stands above the next, and whether that is more than chance, by the seeds that both have."""
    top, next_ = board[first]["linear"], board[second]["linear"]
    seeds = min(top["n"], next_["n"])
    between = answers.gap(first, second, "linear") if answers else None
    gap = between.mean if between else top["mean"] - next_["mean"]
    if round(100 * gap, 1) == 0:
        return f"{first} and {second} are level."
    sentence = f"{first} stands {_points(gap, between)} {'above' if gap > 0 else 'below'} {second}, "
    if between and not between.sure:
        return sentence + "which may be chance."
    if seeds == 1:
        return sentence + "with one seed: more seeds would tell whether that is chance."
    if not between and gap <= top["std"] + next_["std"]:
        return sentence + "which is within the spread of the seeds."
    more = "more than chance explains" if between else "more than the seeds differ among themselves"
    return sentence + more + (", by two seeds, which tell little of their spread." if seeds == 2 else ".")


def _tuning(board: Board, best: str, fractions: Sequence[float], answers: Answers | None) -> list[str]:
    sentences = []
    for number, fraction in enumerate(fractions):
        metric = fraction_name(fraction) if number else "finetune"
        if metric in board.get(best, {}) and metric in board.get("scratch", {}):
            tuned, scratch = board[best][metric], board["scratch"][metric]
            between = answers.gap(best, "scratch", metric) if answers else None
            sentences.append(
                f"Fine-tuned with {100 * fraction:g} % of the labels it reaches {_percent(tuned)}, "
                f"{_gap(tuned, scratch, 'training from scratch with the same labels', between)}."
            )
    return sentences


def _gap(summary: Summary, control: Summary, name: str, between: Interval | None) -> str:
    gap = between.mean if between else summary["mean"] - control["mean"]
    if round(100 * gap, 1) == 0:
        return f"level with {name}"
    points = _points(gap, between)
    if between and not between.sure:
        points = f"{points[:-1]}: may be chance)"
    return f"{points} {'above' if gap > 0 else 'below'} {name}"


def _points(gap: float, between: Interval | None) -> str:
    """`8.5 points (5.9 to 11.1)`: the size of a gap, and its 95 % interval, in the gap's own direction."""
    said = f"{abs(100 * gap):.1f} points"
    if not between:
        return said
    low, high = (100 * end for end in ((between.low, between.high) if gap > 0 else (-between.high, -between.low)))
    return f"{said} ({low:.1f} to {high:.1f})"


def _percent(summary: Summary) -> str:
    return f"{percent(summary['mean'])} %"


def absent(board: Board, methods: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Which of the methods' numbers rest on fewer runs than were asked for."""
    found = []
    for method in methods:
        for metric in main_metrics(board):
            measured = int(board.get(method, {}).get(metric, {"n": 0})["n"])
            if measured < len(seeds):
                found.append(f"{method}, {title(metric)}: {measured} of {len(seeds)} seeds")
    return found
