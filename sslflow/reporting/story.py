"""The headline: what the numbers say, in plain words, from the leaderboard alone."""

from __future__ import annotations

from collections.abc import Sequence

from sslflow.reporting.leaderboard import CONTROLS, Board, Summary, fraction_name, is_accuracy, metric_names, order


def labelled(board: Board) -> bool:
    """Whether any accuracy was measured."""
    return any(is_accuracy(metric) for row in board.values() for metric in row)


def best_method(board: Board, methods: Sequence[str]) -> str:
    """The method at the top of the board, or the first that is run, where nothing ranks them."""
    ranked = [name for name in order(board) if name not in CONTROLS]
    return ranked[0] if ranked and labelled(board) else methods[0]


def headline(board: Board, methods: Sequence[str]) -> str:
    """One sentence with the best method and its accuracy, or that there are no labels."""
    if not labelled(board):
        count = "1 method" if len(methods) == 1 else f"{len(methods)} methods"
        return f"{count} trained. No labels: how good the features are can be looked at here, but not measured."
    best = best_method(board, methods)
    metric = next((m for m in ("linear", "knn", "finetune") if m in board.get(best, {})), None)
    if metric is None:
        return "The methods have not been probed yet."
    words = {"linear": "a linear classifier on its frozen features", "knn": "kNN on its frozen features"}
    measured = words.get(metric, "fine-tuned, it")
    summary = board[best][metric]
    first = f"{best}: {measured} is right on {_percent(summary)} of the test images"
    gaps = [
        _gap(summary, board[control][metric], CONTROLS[control])
        for control in ("random", "pixels")
        if metric in board.get(control, {})
    ]
    return first + (f", {' and '.join(gaps)}." if gaps else ".")


def remarks(board: Board, methods: Sequence[str], seeds: Sequence[int], fractions: Sequence[float]) -> list[str]:
    """Sentences below the headline: fine-tuning, how sure the order of the methods is, what to beware of."""
    if not labelled(board):
        return [
            "Look at the curves, at the neighbours and at the clusters below. For numbers, name a labelled set as data.probe_source."
        ]
    best = best_method(board, methods)
    found = [*_tuning(board, best, fractions)]
    ranked = [name for name in order(board) if name not in CONTROLS and "linear" in board[name]]
    if len(ranked) > 1:
        top, second = board[ranked[0]]["linear"], board[ranked[1]]["linear"]
        gap = 100 * (top["mean"] - second["mean"])
        within = gap <= 100 * (top["std"] + second["std"])
        found.append(
            f"{ranked[0]} stands {gap:.1f} points above {ranked[1]}, "
            + ("which is within the spread of the seeds." if within else "more than the seeds differ among themselves.")
            if len(seeds) > 1
            else f"{ranked[0]} stands {gap:.1f} points above {ranked[1]}, with one seed: run more to know whether that is chance."
        )
    below = [
        f"{name} is below {CONTROLS[control]} ({_percent(board[name]['linear'])} against {_percent(board[control]['linear'])}): it learned nothing that a linear classifier can use"
        for name in ranked
        for control in ("random",)
        if "linear" in board.get(control, {}) and board[name]["linear"]["mean"] < board[control]["linear"]["mean"]
    ]
    return [*found, *(f"{sentence}." for sentence in below)]


def _tuning(board: Board, best: str, fractions: Sequence[float]) -> list[str]:
    sentences = []
    for number, fraction in enumerate(fractions):
        metric = fraction_name(fraction) if number else "finetune"
        if metric in board.get(best, {}) and metric in board.get("scratch", {}):
            tuned, scratch = board[best][metric], board["scratch"][metric]
            sentences.append(
                f"Fine-tuned with {100 * fraction:g} % of the labels it reaches {_percent(tuned)}, "
                f"{_gap(tuned, scratch, 'training from scratch with the same labels')}."
            )
    return sentences


def _gap(summary: Summary, control: Summary, name: str) -> str:
    points = round(100 * (summary["mean"] - control["mean"]), 1)
    if points == 0:
        return f"level with {name}"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'} {name}"


def _percent(summary: Summary) -> str:
    return f"{100 * summary['mean']:.1f} %"


def absent(board: Board, methods: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Which of the methods' numbers rest on fewer runs than were asked for."""
    return [
        f"{method}: {metric} of {int(board[method][metric]['n']) if metric in board.get(method, {}) else 0} of {len(seeds)} seeds"
        for method in methods
        for metric in metric_names(board)
        if int(board.get(method, {}).get(metric, {"n": 0})["n"]) < len(seeds)
    ]
