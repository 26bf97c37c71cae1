"""The report: one HTML file that holds everything it shows and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import any_one, singular
from sslflow.data.splits import TEST, TRAIN
from sslflow.drawing.embedded import sheet
from sslflow.features.store import FeatureStore
from sslflow.reporting import contents, curves, leaderboard, origin, story, verdicts
from sslflow.reporting.adaptation import section as adaptation
from sslflow.reporting.adaptation.gains import Adaptations
from sslflow.reporting.answers import RETRIEVAL, Answers
from sslflow.reporting.captions import section as captioned
from sslflow.reporting.clips import section as audiovisual
from sslflow.reporting.clips.results import Correspondences
from sslflow.reporting.depth import section as far
from sslflow.reporting.depth.rows import Rows as Distances
from sslflow.reporting.images import (
    atlas,
    audited,
    confusion,
    imbalance,
    mapped,
    neighbours,
    prepared,
    pseudolabels,
    worth,
)
from sslflow.reporting.so_far import SoFar
from sslflow.reporting.text import section as language
from sslflow.reporting.where import section as where
from sslflow.reporting.where.rows import Rows
from sslflow.runtime.files import read_json
from sslflow.settings.params import Count, Natural, lookup

FEW = 200
"""Labelled test images below which something is said of how sure accuracies are."""
ROWS = 16_384
"""Of features that are looked at in one piece: they may be larger than memory."""
KNN_K = 20
"""Neighbours of the probe, where its setting is left out."""
AGREEMENT = {"nmi": "NMI", "ari": "ARI", "accuracy": "accuracy", "purity": "purity"}


@dataclass(frozen=True)
class Run:
    """What the report is about: nothing that other methods or seeds have left on the disk is looked at."""

    methods: Sequence[str]
    seeds: Sequence[int]
    fractions: Sequence[float]
    """Labelled fractions of fine-tuning, the main one first."""
    params: dict[str, Any]
    """All settings, as they stand in the file."""


def render(
    run: Run,
    board: leaderboard.Board,
    dataset: Dataset,
    answers: Answers,
    prices: worth.Prices,
    card: dict[str, Any],
    so_far: SoFar | None = None,
    *,
    seed: Natural = 0,
    map_images: Count = 1500,
    queries: Count = 8,
    neighbour_count: Count = 8,
    adapter: str = "gated_dance",
    clip_method: str = "alignment",
) -> str:
    """The page. `seed` chooses the images of the map and the queries, which show `neighbour_count` neighbours each;
    `adapter` is the method of adaptation whose decisions are shown, `clip_method` the method for clips.

    What a stage has not made (no labels, a stage left out) is left out of the page; where pictures are shown, the first
    seed of each method stands for it.
    """
    best = story.best_method(board, run.methods)
    audit = audited.section(dataset) if run.methods else None
    said = verdicts.collect(run.methods, run.seeds)
    features, broken = _features(run, dataset)
    asked = neighbours.queries(dataset, queries, seed)
    adaptations = Adaptations(run.params, run.seeds)
    correspondences = Correspondences(run.params, run.seeds)
    places = where.section(Rows(run.params, run.seeds, dataset), seed)
    measured, unit = story.labelled(board), dataset.format.unit
    content = {
        "examples": unit,
        "example": singular(unit),
        "an_example": any_one(unit),
        "so_far": so_far,
        "adapted": adaptation.section(adaptations, adapter, map_images, seed),
        "heard": audiovisual.section(correspondences, clip_method, seed),
        "headline": (
            places["said"][0]
            if places and places["said"] and not measured
            else story.headline(board, run.methods, dataset.labelled, answers, unit)
        ),
        "remarks": [
            *story.remarks(board, run.methods, run.fractions, dataset.labelled or bool(places), answers),
            *_few(run, board, dataset),
            *prepared.unannotated(run.params, dataset),
            *broken,
        ],
        "alerts": _alerts(audit, said),
        "absent": story.absent(board, run.methods, run.seeds),
        "measured": measured,
        "labelled": dataset.labelled,
        "run": run,
        "best": best,
        "table": _table(run, board, leaderboard.main_metrics(board)) if run.methods and (board or not places) else None,
        "retrieved": _table(run, board, [metric for metric in leaderboard.metric_names(board) if metric in RETRIEVAL]),
        "worth": worth.section(board, answers, dataset, best, prices),
        "where": places,
        "matched": captioned.section(captioned.Rows(run.params, run.seeds, dataset), seed),
        "depth": far.section(Distances(run.params, run.seeds, dataset)),
        "language": language.section(language.Rows(run.params, run.seeds, dataset)),
        "imbalance": imbalance.section(board, answers, dataset, best),
        "data": prepared.section(dataset, run.params) if run.methods else None,
        "audited": audit,
        "curves": _curves(run),
        "verdicts": said,
        "views": _views(run),
        "map": mapped.section(
            dataset, atlas.sample(dataset, map_images, seed), features, next(iter(run.seeds), 0), best, seed
        ),
        "neighbours": [
            (method, neighbours.table(dataset, array, asked, neighbour_count)) for method, array in features.items()
        ],
        "clusters": _clusters(run),
        "pseudolabels": pseudolabels.section(run.methods, best, unit),
        "confusion": confusion.confusion((paths.predictions(best, one) for one in run.seeds), dataset.classes),
        "card": card,
        "settings": origin.settings_text(card["params"]),
        "weights": origin.weights(run.params.get("starts") or {}),
    }
    shown = [one for one in contents.SECTIONS if content[one.content]]
    return _template("report.html.j2").render(style="report.css.j2", sections=shown, **content)


def render_waiting(so_far: SoFar) -> str:
    """The page of a run that has prepared no images yet."""
    return _template("waiting.html.j2").render(style="report.css.j2", so_far=so_far)


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sslflow", "reporting/templates"),
        autoescape=True,  # names of files and classes come from outside
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["duration"] = leaderboard.duration
    return environment.get_template(name)


def _table(run: Run, board: leaderboard.Board, metrics: Sequence[str]) -> dict[str, Any]:
    best = {metric: leaderboard.best(board, metric) for metric in metrics}
    main = run.fractions[0] if run.fractions else None
    return {
        "tuned": any(metric.startswith("finetune") for metric in metrics),
        "titles": [leaderboard.title(metric, main) for metric in metrics],
        "rows": [
            {
                "name": leaderboard.row_title(board, name),
                "control": leaderboard.is_control(name),
                "seeds": leaderboard.seeds_of(board[name]),
                "cells": [
                    (leaderboard.shown(m, board[name].get(m)), name in best[m], leaderboard.trusted(board[name].get(m)))
                    for m in metrics
                ],
            }
            for name in leaderboard.order(board)
            if any(metric in board[name] for metric in metrics)
        ],
    }


def _curves(run: Run) -> dict[str, Any] | None:
    """The small multiples, and the methods that have none of them."""
    if not run.methods:
        return None
    rows = curves.panels(run.methods, run.seeds)
    drawn = {method for row in rows for method, _ in row.drawn}
    return {"rows": rows, "missing": [method for method in run.methods if method not in drawn]}


def _alerts(audit: audited.Section | None, said: Sequence[tuple[str, list[verdicts.Said]]]) -> list[tuple[str, str]]:
    """What spoils the numbers: words that stand above them, and the section that tells more."""
    found = [(f"Leakage. {audit.warning}", "audit")] if audit and audit.warning else []
    for method, findings in said:
        found += [
            (f"Sick. {method} (seed {', '.join(map(str, one.seeds))}): {one.words}", "verdict")
            for one in findings
            if one.sick
        ]
    return found


def _few(run: Run, board: leaderboard.Board, dataset: Dataset) -> list[str]:
    """What to know of accuracies where labelled images are few."""
    if not story.labelled(board) or not dataset.labelled:
        return []
    train, test = (len(dataset.labelled_rows(split)) for split in (TRAIN, TEST))
    said, unit = [], dataset.format.unit
    if test < FEW:
        said.append(
            f"There are {test} labelled test {unit}: one more that is right is {100 / test:.1f} points, and a standard "
            f"error up to {100 * (0.25 / test) ** 0.5:.0f} points."
        )
    k = lookup(run.params, "probe.knn").get("k", KNN_K)
    if isinstance(k, int) and k >= train:
        said.append(f"kNN asks for {k} neighbours, and there are {train} labelled training {unit}: all of them vote.")
    return said


def _views(run: Run) -> list[dict[str, Any]]:
    found = []
    for method in run.methods:
        file = paths.metrics("preview", method)
        picture, doing = sheet(paths.views(method)), sheet(paths.pictures(method, run.seeds[0]))
        if picture or doing or file.exists():
            rates = _rates(run, method, read_json(file)) if file.exists() else []
            found.append({"method": method, "picture": picture, "doing": doing, "rates": rates})
    return found


def _rates(run: Run, method: str, measured: dict[str, float]) -> list[tuple[str, float, bool]]:
    """Name, images a second, and whether the run is set so; the views first."""
    train = lookup(run.params, f"methods.{method}.train", over="train")
    present = f"encoder_{train.get('precision', 'fp32')}_{train.get('memory_format', 'channels_last')}"
    lines = [("views made", rate, False) for name, rate in measured.items() if name == "views"]
    for name, rate in measured.items():
        if name != "views":
            words = name.removeprefix("encoder_").replace("_", ", ", 1)
            lines.append((f"encoder, {words}", rate, name == present))
    return lines


def _features(run: Run, dataset: Dataset) -> tuple[dict[str, np.ndarray], list[str]]:
    """Features by each method's first seed, where there are some for these images; and what is said of those that
    can't be shown."""
    found, said, unit = {}, [], dataset.format.unit
    for method in run.methods:
        folder = paths.features(method, run.seeds[0])
        if not (folder / "meta.json").exists():
            continue
        features = FeatureStore(folder).array
        if len(features) != len(dataset):
            raise ValueError(
                f"{folder}: features of {len(features)} {unit}, but {len(dataset)} are prepared; run `dvc repro`"
            )
        wrong = sum(
            int((~np.isfinite(features[start : start + ROWS]).all(axis=1)).sum()) for start in _starts(features)
        )
        if wrong:
            said.append(
                f"{method}: the features of {wrong:,} of {len(features):,} {unit} are not finite numbers: it has no "
                "map and no neighbours here. Its training has diverged; a smaller learning rate, or fp32, may mend it."
            )
        else:
            found[method] = features
    return found, said


def _starts(features: np.ndarray) -> range:
    return range(0, len(features), ROWS)


def _clusters(run: Run) -> dict[str, Any] | None:
    """A line of numbers for each run, and the sheet of each method's first seed; None where there is neither."""
    lines = []
    for method in run.methods:
        for seed in run.seeds:
            name = paths.run_name(method, seed)
            file = paths.metrics("pseudolabel", name)
            if file.exists():
                lines.append({"run": name, **read_json(file)})
    sheets = [
        (method, picture)
        for method in run.methods
        if (picture := sheet(paths.pseudolabels(method, run.seeds[0]) / "clusters.png"))
    ]
    if not (lines or sheets):
        return None
    agreement = {key: title for key, title in AGREEMENT.items() if any(key in line for line in lines)}
    return {"lines": lines, "sheets": sheets, "agreement": agreement}
