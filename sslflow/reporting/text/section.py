"""The section about language: what is known of it, how surely, and what does it look like?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sslflow.reporting.amounts import percent
from sslflow.reporting.text.rows import FOLLOWING, PERPLEXITY, TITLES, Rows

PASSAGES = 4
LIKELY = (0.5, 0.1, 0.01)
"""Steps of how likely a word was, by which it is coloured."""


def section(rows: Rows) -> dict[str, Any] | None:
    """What the page shows; None where nothing has been asked."""
    if not rows.found:
        return None
    columns = rows.columns()
    telling = rows.best(PERPLEXITY, rows.methods)
    vectors = next((name for name in reversed(rows.methods) if rows.shown(name).get("nearest")), None)
    return {
        "said": list(sentences(rows)),
        "heads": [
            (title, count)
            for title, count in (
                ("hidden words", sum(name == PERPLEXITY for name in columns)),
                ("what follows, told from", sum(name in FOLLOWING for name in columns)),
                ("words", sum(name != PERPLEXITY and name not in FOLLOWING for name in columns)),
            )
            if count
        ],
        "columns": [TITLES.get(name, name) for name in columns],
        "lines": [
            (rows.title(name), name in rows.controls, [rows.cell(name, metric) for metric in columns])
            for name in rows.found
        ],
        "telling": telling,
        "passages": list(_passages(rows, telling)) if telling else [],
        "vectors": vectors,
        "nearest": list(rows.shown(vectors)["nearest"].items()) if vectors else [],
    }


def sentences(rows: Rows) -> Iterator[str]:
    """Of each question the best method, and how far it is from the best row that only counts."""
    for metric, words in (
        (PERPLEXITY, "tells hidden words with a perplexity of"),
        ("other", "tells what follows a passage from another document's passage"),
    ):
        best, beside = rows.best(metric, rows.methods), rows.best(metric, rows.controls)
        if not best or not beside or not (gap := rows.gap(best, beside, metric)):
            continue
        own, theirs = rows.mean(best, metric) or 0, rows.mean(beside, metric) or 0
        ends = f"{gap.low:.2f} to {gap.high:.2f}"
        if metric == PERPLEXITY:
            sure = "" if gap.high < 1 or gap.low > 1 else ": may be chance"
            ratio = f"{gap.mean:.2f} times ({ends}{sure})"
            yield f"{best} {words} {own:.1f}, {ratio} that of {rows.title(beside)}, {theirs:.1f}."
        else:
            sure = "" if gap.sure else ": may be chance"
            apart = f"{100 * gap.mean:.1f} points ({100 * gap.low:.1f} to {100 * gap.high:.1f}{sure})".replace("-", "−")
            shares = f"in {percent(own)} % of the cases, {rows.title(beside)} in {percent(theirs)} %"
            yield f"{best} {words} {shares}: {apart}."


def _passages(rows: Rows, name: str) -> Iterator[list[dict[str, Any]]]:
    """A few passages: each word, how likely it was, the likeliest in its place, and how likely by counts."""
    beside = rows.best(PERPLEXITY, rows.controls)
    others = rows.shown(beside).get("passages", []) if beside else []
    for number, words in enumerate(rows.shown(name).get("passages", [])[:PASSAGES]):
        counted = others[number] if number < len(others) and len(others[number]) == len(words) else []
        yield [
            {
                "word": one["word"],
                "best": one.get("best", "") if one.get("best") != one["word"] else "",
                "likely": percent(one["likely"]),
                "counted": percent(counted[at]["likely"]) if counted else "",
                "level": sum(one["likely"] < step for step in LIKELY),
            }
            for at, one in enumerate(words)
        ]
