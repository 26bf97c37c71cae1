"""What each adaptation method reached beside doing nothing, in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from sslflow.evaluation.intervals import Interval
from sslflow.examination.adaptation.gaps import MARGIN, Verdict, signed, verdict
from sslflow.reporting.adaptation.gains import BASELINE, Adaptations, Block

WORDS: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "level": "level",
    "may be chance": "a difference that may be chance",
}


def sentences(runs: Adaptations) -> list[str]:
    """Where each method is better or worse than doing nothing; first, whether one is nowhere worse."""
    if not any(runs.scores(method, block.setting, block.start) for block in runs.blocks() for method in runs.methods):
        return ["The target has no labels: what is rejected and how it is grouped can be looked at, not measured."]
    if BASELINE not in runs.methods:
        return [f"Whether it is better than doing nothing can't be told: add {BASELINE} to run.adapt_methods."]
    compared = {name: list(runs.compared(name)) for name in runs.methods if name != BASELINE}
    compared = {name: found for name, found in compared.items() if found}
    if not compared:
        return [f"Nothing can be compared yet: no other method has run beside {BASELINE}."]
    tried = "in every setting tried" if len({block.setting for block in runs.blocks()}) > 1 else "here"
    level = [name for name, found in compared.items() if all(between.low > -MARGIN for between, _ in found)]
    unharmed = [name for name, found in compared.items() if all(verdict(between) != "worse" for between, _ in found)]
    if level:
        first = f"{' and '.join(level)} {'are' if len(level) > 1 else 'is'} at least level with doing nothing {tried}."
    elif unharmed:
        first = f"{' and '.join(unharmed)}: nowhere worse than doing nothing by more than chance may explain."
    else:
        first = f"Each method is worse than doing nothing {'somewhere' if len(runs.settings) > 1 else tried}."
    return [first, *(_sentence(name, found) for name, found in compared.items()), *_advice(runs)]


def _sentence(method: str, found: list[tuple[Interval, Block]]) -> str:
    """`gated_dance: better in opda (+10.6 (+4.1 to +17.0) points from pretrained weights); …`."""
    parts = []
    for kind, words in WORDS.items():
        where: dict[str, list[str]] = {}
        for between, block in found:
            if verdict(between) == kind:
                where.setdefault(block.setting, []).append(f"{signed(between)} points from {block.start} weights")
        told = [f"{setting}: {', '.join(gaps)}" for setting, gaps in where.items()]
        if told:
            parts.append(f"{words} in {' and '.join(told)}")
    return f"{method}: {'; '.join(parts)}."


def _advice(runs: Adaptations) -> Iterator[str]:
    """When to take which, where the table shows that it matters."""
    less = [
        f"{method} in {block.setting}"
        for block in runs.blocks()
        for method, cells in block.rows
        if (cell := cells.get("unk")) and cell.verdict == "worse" and cells["main"].verdict != "worse"
    ]
    if less:
        yield (
            f"Fewer unknown images are rejected than by {BASELINE} ({', '.join(dict.fromkeys(less))}): where a missed "
            f"one costs more than a known one rejected, take {BASELINE}."
        )
    if runs.asks:
        yield (
            "If you know whether the target holds images of unknown classes, say so, as "
            "adapt_methods.gated_dance.unknown (none or some): it need not be guessed then."
        )
