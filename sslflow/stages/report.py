"""Gather what the run's methods and seeds have written: leaderboard, merged curves, and the page that shows it all."""

from __future__ import annotations

from sslflow import places
from sslflow.data.dataset import Dataset
from sslflow.files import write_text
from sslflow.params import load, read
from sslflow.reporting import leaderboard
from sslflow.reporting.curves import merge
from sslflow.reporting.page import Run, render
from sslflow.stages.entry import run

SECTIONS = ("run", "report", "compute", "data", "encoder", "methods", "extract", "pseudolabel", "probe", "finetune")
"""`run` and `report` steer the report; the others stand in it, as the settings behind its numbers."""


def main() -> None:
    """Write the leaderboard, `artifacts/curves.csv` and the page, and print the leaderboard."""
    params = read({"run": leaderboard.run, "report": render})
    leaderboard.run(**params["run"])
    methods, seeds = params["run"]["methods"], params["run"]["seeds"]
    dataset = Dataset()
    settings = load()
    fractions = tuple((settings.get("finetune") or {}).get("fractions", ()))

    board = leaderboard.collect(methods, seeds, fractions)
    leaderboard.write_board(board)
    points = merge(methods, seeds, places.ARTIFACTS / "curves.csv")
    page = render(Run(methods, seeds, fractions, settings, SECTIONS), board, dataset, **params["report"])
    file = places.REPORT / "index.html"
    write_text(file, page)
    print(f"report: {len(methods) * len(seeds)} runs, {points} points of curves, {len(page) / 1e6:.1f} MB")
    print(leaderboard.leaderboard_text(board))
    print(f"report: {file}")


if __name__ == "__main__":
    run(main)
