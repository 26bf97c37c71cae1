"""The section about images and captions: are they understood, how surely, and what does it look like?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sslflow.evaluation.intervals import Interval
from sslflow.reporting.amounts import percent
from sslflow.reporting.captions import examples
from sslflow.reporting.captions.rows import BLIND, METRICS, NEAREST, OWN, Row, Rows

SAID = {
    "zero_shot": "tells the class of {} % of the unseen images by its name alone",
    "told_f1": "tells captions of unseen images with {} % of the words right (F1)",
    "texts_r1": "finds a caption of an unseen image first among all of them for {} %",
}


def section(rows: Rows, seed: int) -> dict[str, Any] | None:
    """What the page shows; None where nothing has been made. `seed` chooses the images and texts that are shown."""
    if not rows.found:
        return None
    metrics = rows.metrics()
    groups = list(dict.fromkeys(METRICS[name].group for name in metrics))
    chance = rows.chance()
    compared, telling = _by(rows, "texts_r1"), _by(rows, "told_f1")
    return {
        "said": list(sentences(rows)),
        "heads": [(group, sum(METRICS[name].group == group for name in metrics)) for group in groups],
        "columns": [(METRICS[name].title, name) for name in metrics],
        "lines": [
            (rows.title(row), row.way == NEAREST, [rows.cell(row, name) for name in metrics]) for row in rows.found
        ],
        "chance": [_chance(chance, name) for name in metrics] if chance else [],
        "by_captions": percent(chance["zero_shot_by_captions"]) if "zero_shot_by_captions" in chance else "",
        "commonest": percent(chance["zero_shot_commonest"]) if "zero_shot_commonest" in chance else "",
        "images": f"{chance.get('images', 0):,.0f}",
        "texts": f"{chance.get('texts', 0):,.0f}",
        "found_texts": (compared.name, list(examples.found_texts(rows, compared, seed))) if compared else None,
        "found_images": (compared.name, list(examples.found_images(rows, compared, seed))) if compared else None,
        "told": (telling.name, list(examples.told(rows, telling, seed))) if telling else None,
        "confusion": examples.confusion(rows, classes) if (classes := _by(rows, "zero_shot")) else None,
        "classes_by": classes.name if classes else "",
    }


def sentences(rows: Rows) -> Iterator[str]:
    """Of each task the best method, how far it is above the best baseline of nearest images, and above chance."""
    chance = rows.chance()
    for metric, words in SAID.items():
        best, beside = rows.best(metric, OWN), _baseline(rows, metric)
        if not best or not (over := rows.over(best, metric)):
            continue
        said = f"{best.name} {words.format(percent(over.mean))} ({percent(over.low)} to {percent(over.high)})"
        if by_chance := chance.get(f"{metric}_chance"):
            said += f", {over.mean / by_chance:.1f} times chance ({percent(by_chance)})"
        if beside and (gap := rows.gap(best, beside, metric)):
            said += f"; {_distance(gap)} {rows.title(beside)}"
        yield f"{said}."


def _baseline(rows: Rows, metric: str) -> Row | None:
    return rows.best(metric, NEAREST)


def _by(rows: Rows, metric: str) -> Row | None:
    """The method that is shown: the best of its own, or else the best there is."""
    return rows.best(metric, OWN) or next((row for row in rows.found if row.name != BLIND), None)


def _distance(gap: Interval) -> str:
    low, high = (gap.low, gap.high) if gap.mean >= 0 else (-gap.high, -gap.low)
    aside = "" if gap.sure else ": may be chance"
    ends = f"({100 * low:.1f} to {100 * high:.1f}{aside})".replace("-", "−")
    return f"{100 * abs(gap.mean):.1f} points {ends} {'above' if gap.mean >= 0 else 'below'}"


def _chance(chance: dict[str, float], metric: str) -> str:
    value = chance.get(f"{metric}_chance")
    if value is None:
        return "–"
    return f"{value:.1f}" if metric.endswith("rank") else percent(value)
