"""A run that has been made, read from its files: what it rests on, its scores, and its answers about test images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sslflow import paths
from sslflow.reporting.answers import Answers, tuned_columns
from sslflow.reporting.card import CARD, COLUMNS, IMAGES
from sslflow.reporting.leaderboard import Board, fractions_of, is_accuracy
from sslflow.runtime.files import read_csv, read_json

NEEDED = [
    paths.LEADERBOARD,
    paths.SCORES,
    paths.METRICS / "finetune",
    *(paths.REPORT / name for name in (CARD, IMAGES)),
    *(paths.ARTIFACTS / name for name in ("predictions", "tuned")),
]
"""Files, and folders of them, that a run is read from."""

Answered = dict[tuple[str, str, str], float]
"""Right (1) or wrong (0) of each test image, by its path, hash and class."""


@dataclass(frozen=True)
class Made:
    """A run that has been made: its card, its leaderboard, and its answers about test images."""

    name: str
    card: dict[str, Any]
    board: Board
    scores: dict[str, float]
    """Of adaptation, of methods for clips, and of masks and boxes."""
    images: dict[int, dict[str, str]]
    """Row to path, hash, class and group of each labelled test image."""
    answers: dict[tuple[str, str], dict[int, Answered]]
    """Of a row of the board in a metric, by seed."""

    @cached_property
    def groups(self) -> dict[tuple[str, str, str], str]:
        """Of each test image."""
        return {key(one): one["group"] for one in self.images.values()}


def open_run(name: str, folder: Path, *, revision: bool = False) -> Made:
    """The run in a folder: that of a project, or its `artifacts`, or what was fetched of a `revision`. Raises
    `ValueError` where it isn't one, or has no scores yet."""
    root = folder.parent if folder.resolve().name == paths.ARTIFACTS.name else folder
    if not (root / paths.ARTIFACTS).is_dir():
        raise ValueError(f"{name}: not a run: expected a folder that holds {paths.ARTIFACTS}/, as a project's does")
    mend = (
        "commit it, and keep DVC's cache, or `dvc pull`" if revision else "`dvc repro report` makes it in that folder"
    )
    if not (root / paths.LEADERBOARD).exists():
        raise ValueError(f"{name}: no scores yet: {paths.LEADERBOARD} is missing; {mend}")
    if not (root / paths.REPORT / CARD).exists():
        raise ValueError(f"{name}: {paths.REPORT / CARD}, which says what its scores rest on, is missing; {mend}")
    with contextlib.chdir(root):
        try:
            return _opened(name)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{name}: {error}") from error


def _opened(name: str) -> Made:
    card, board = read_json(paths.REPORT / CARD), read_json(paths.LEADERBOARD)
    methods, seeds = card["methods"], card["seeds"]
    files = sorted(paths.SCORES.glob("*.json"))
    scores = {f"{file.stem} {key}": value for file in files for key, value in read_json(file).items()}
    scores = {key: value for key, value in scores.items() if key.startswith(("adapt-", "clips-", "where-"))}
    if not board and not scores:
        raise ValueError(f"no scores yet: {paths.LEADERBOARD} is empty")
    fractions = fractions_of(methods, seeds)
    columns = tuned_columns(fractions)  # so that the main share of one run isn't taken for another's
    images = {int(one["row"]): one for one in read_csv(paths.REPORT / IMAGES, COLUMNS)}
    answers = Answers(seeds, np.zeros(0), fractions)
    found: dict[tuple[str, str], dict[int, Answered]] = {}
    for row, cells in board.items():
        for metric in filter(is_accuracy, cells):
            of_seed = {seed: one for seed in seeds if (one := answers.answered(row, seed, metric))}
            for seed, (places, _) in of_seed.items():
                if not images.keys() >= set(places.tolist()):
                    raise ValueError(
                        f"the answers of {row}, seed {seed}, are about other images than {paths.REPORT / IMAGES}, "
                        "written with the run card, knows; make the report anew: `dvc repro report` in that folder"
                    )
            found[row, columns.get(metric, metric)] = {
                seed: {key(images[int(place)]): float(value) for place, value in zip(*one, strict=True)}
                for seed, one in of_seed.items()
            }
    renamed: Board = {
        row: {columns.get(key, key): cells[key] for key in map(str, cells)} for row, cells in board.items()
    }
    return Made(name, card, renamed, scores, images, found)


def key(image: Mapping[str, str]) -> tuple[str, str, str]:
    return image["path"], image["sha256"], image["label"]
