"""The section about what is where: does pretraining pay for masks and boxes, how surely, and what does it look like?"""

from __future__ import annotations

from typing import Any

from sslflow.examination.where.found import Metric, Way
from sslflow.reporting.where import boxes, localised, masks
from sslflow.reporting.where.rows import METRICS, NAMES, SCRATCH, Rows, share, title
from sslflow.reporting.where.words import other_networks, sentences


def section(rows: Rows, seed: int) -> dict[str, Any] | None:
    """What the page shows; None where no row has been made. `seed` chooses the images with localised things."""
    names = list(dict.fromkeys([*rows.asked["map"], *rows.asked["miou"]]))
    pointed = localised.section(rows, sorted(names, key=lambda name: name not in rows.methods), seed)
    if not rows.metrics() and not pointed:
        return None
    columns = rows.columns()
    titles = METRICS | ({"miou": "voxels, mIoU"} if rows.found.volumes else {})
    heads = [(title, sum(one.metric == metric for one in columns)) for metric, title in titles.items()]
    return {
        "said": sentences(rows) if rows.metrics() else [],
        "heads": [(title, count) for title, count in heads if count],
        "columns": [
            (NAMES[one.protocol], not number or one.metric != columns[number - 1].metric)
            for number, one in enumerate(columns)
        ],
        "blocks": [(_of_labels(rows, fraction), list(rows.lines(fraction))) for fraction in rows.fractions()],
        "compared": any(SCRATCH in rows.names(metric) for metric in rows.metrics()),
        "other_network": " ".join(other_networks(rows)),
        "absent": absent(rows),
        "tests": _tests(rows),
        "masks": _masks(rows),
        "boxes": _boxes(rows),
        "volumes": rows.found.volumes,
        "localised": pointed,
    }


def _of_labels(rows: Rows, fraction: float) -> str:
    return f"{share(fraction)} of the labels"


def _tests(rows: Rows) -> str:
    counts = {metric: len(rows.found.rows(metric)) for metric in rows.metrics()}
    if rows.found.volumes:
        return f"{counts['miou']:,} whose voxels are labelled" if counts else ""
    told = [f"{counts[metric]:,} with {words}" for metric, words in rows.tasks.items() if counts.get(metric)]
    return " and ".join(told)


def _best(rows: Rows, metric: Metric) -> tuple[Way, str] | None:
    """The way with most labels that rows are fine-tuned by, or else the last there is, and its best row."""
    ways = [way for name in rows.names(metric) for way in rows.found.ways(name, metric)]
    if not ways:
        return None
    way = max(ways, key=lambda way: (way.protocol == "tuned", way.fraction, way.protocol == "linear"))
    means = {name: over.mean for name in rows.names(metric) if (over := rows.over(name, metric, way))}
    return way, max(means, key=means.__getitem__)


def _masks(rows: Rows) -> dict[str, Any] | None:
    if not (found := _best(rows, "miou")):
        return None
    way, best = found
    heads, lines = masks.classes(rows, way, best)
    truth = rows.found.dataset.truth
    assert truth
    return {
        "best": title(best, rows.methods),
        "way": f"{NAMES[way.protocol]} with {share(way.fraction)} of the labels",
        "heads": heads,
        "lines": lines,
        "confusion": masks.confusion(rows, way, best),
        "examples": masks.examples(rows, way, best),
        "legend": masks.legend(truth.pixel_classes),
    }


def _boxes(rows: Rows) -> dict[str, Any] | None:
    if not (found := _best(rows, "map")):
        return None
    way, best = found
    return {
        "best": title(best, rows.methods),
        "way": f"{NAMES[way.protocol]} with {share(way.fraction)} of the labels",
        "look": (look := boxes.look(rows, way, best)),
        "from": boxes.words_of(look.score) if look else "",
    }


def absent(rows: Rows) -> list[str]:
    """Which rows that were asked for rest on fewer seeds, or have not been made, or of other test images."""
    wanted, found = len(rows.found.seeds), []
    for metric, task in rows.tasks.items():
        for name in rows.asked[metric]:
            seeds = rows.found.seeds_of(name, metric)
            if seeds < wanted:
                others = rows.found.others(name, metric)
                said = f", {others} made of other test {rows.found.dataset.format.unit}: left out" if others else ""
                found.append(f"{task}, {title(name, rows.methods)}: {seeds} of {wanted} seeds{said}")
    for name in rows.asked["map"]:
        made, looked = rows.found.seeds_of(name, "map"), len(localised.read_all(rows.found, name))
        if name != SCRATCH and looked < made:
            found.append(f"localisation, {title(name, rows.methods)}: {looked} of {made} seeds")
    return found
