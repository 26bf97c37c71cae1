"""report: what the run's methods and seeds have written, as a leaderboard, merged curves and a page to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.reporting import card, leaderboard, origin
from sslflow.reporting.adaptation.gains import Adaptations
from sslflow.reporting.answers import Answers
from sslflow.reporting.captions.rows import Rows as Matched
from sslflow.reporting.clips.results import Correspondences
from sslflow.reporting.curves import merge
from sslflow.reporting.depth.rows import Rows as Distances
from sslflow.reporting.images.worth import Prices
from sslflow.reporting.page import Run, render
from sslflow.reporting.so_far import SoFar
from sslflow.reporting.text.rows import Rows as LanguageRows
from sslflow.reporting.where.rows import Rows
from sslflow.runtime.files import write_text
from sslflow.settings import sections
from sslflow.settings.params import load, lookup, read
from sslflow.stages.entry import run

SHOWN = (
    "run",
    "compute",
    "data",
    "audit",
    "encoder",
    "train",
    "views",
    "methods",
    "pretrain",
    "extract",
    "pseudolabel",
    "audit_clusters",
    "probe",
    "finetune",
    "segment",
    "segment_volumes",
    "detect",
    "match",
    "language",
    "depth",
    "domains",
    "adapt",
    "adapt_methods",
    "clips",
    "clip_train",
    "clip_views",
    "clip_encoders",
    "clip_methods",
    "pretrain_clips",
    "examine",
    "starts",
    "start",
)
"""Sections that stand in the report as the settings behind its numbers."""

SECTIONS = ("report", *SHOWN)


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"run": sections.Run, "report": render, "report.prices": Prices}


def main() -> None:
    make(paths.REPORT / "index.html")


def make(file: Path, so_far: SoFar | None = None) -> None:
    """Write the leaderboard, the merged curves, and the page to `file`; `so_far`: how far a run is that goes on."""
    settings = read(schemas())
    methods, seeds = settings["run"]["methods"], settings["run"]["seeds"]
    dataset = Dataset()
    params = load()
    fractions = leaderboard.fractions_of(methods, seeds)

    asked = sections.Run(**settings["run"])
    wanted = {*asked.controls, *asked.tuned_controls}
    starts = [name for name in params.get("starts") or {} if name in wanted]
    board = leaderboard.collect(methods, seeds, fractions, starts)
    answers = Answers(seeds, dataset.groups, fractions)
    begun = {name: lookup(params, f"methods.{name}.start", over="start").get("weights", "random") for name in methods}
    board = leaderboard.compared(board, answers, begun)
    leaderboard.write_board(board)
    adaptations, correspondences = Adaptations(params, seeds), Correspondences(params, seeds)
    for method, score in adaptations.means().items():
        leaderboard.write_scores(f"adapt-{method}", {"adaptation": score})
    for task in correspondences.tasks():
        leaderboard.write_scores(f"clips-{task.method}", {"clips": task.accuracy.mean})
    places = Rows(params, seeds, dataset)
    for name, scores in places.means().items():
        leaderboard.write_scores(f"where-{name}", scores)
    matched = Matched(params, seeds, dataset)
    for name, scores in matched.means().items():
        leaderboard.write_scores(f"match-{name}", scores)
    distances = Distances(params, seeds, dataset)
    for name, scores in distances.means().items():
        leaderboard.write_scores(f"depth-{name}", scores)
    for name, scores in LanguageRows(params, seeds, dataset).means().items():
        leaderboard.write_scores(f"language-{name}", scores)
    points = merge(methods, seeds, paths.ARTIFACTS / "curves.csv")
    durations = [*origin.durations(methods, seeds), *places.durations(), *matched.durations(), *distances.durations()]
    durations += [*adaptations.durations, *correspondences.durations]
    facts = card.card(methods, seeds, origin.settings(params, SHOWN, methods), dataset, durations)
    card.write(paths.REPORT, facts, dataset)
    page = render(
        Run(methods, seeds, fractions, params),
        board,
        dataset,
        answers,
        Prices(**settings["report.prices"]),
        facts,
        so_far,
        **settings["report"],
    )
    write_text(file, page)
    drawn = f", {points} points of curves" if points else ""
    print(f"report  {len(methods) * len(seeds)} runs{drawn}, {len(page) / 1e6:.1f} MB")
    if methods:
        print(leaderboard.leaderboard_text(board, dataset.format.unit))
    print(f"report: {file}")


if __name__ == "__main__":
    run(main)
