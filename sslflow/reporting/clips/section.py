"""The report's section on picture and sound: tables of all methods, and one run to look at and to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from sslflow import paths
from sslflow.audiovisual.views import ClipViews
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.data.splits import TEST
from sslflow.drawing.embedded import Picture, sheet
from sslflow.reporting import curves, verdicts
from sslflow.reporting.clips import claims
from sslflow.reporting.clips import results as scores
from sslflow.reporting.clips.moments import Heard, Moments
from sslflow.reporting.clips.pairings import Decided, decided
from sslflow.reporting.clips.results import Correspondences
from sslflow.reporting.clips.searches import Search, searches
from sslflow.reporting.clips.sound_maps import Located, located
from sslflow.reporting.clips.sounds import Player
from sslflow.runtime.rng import permutation
from sslflow.settings.params import lookup, schema

ROOM = {"strips": 400_000, "decisions": 530_000, "searches": 620_000, "maps": 270_000}
"""Characters of sound that each part of the page may hold: some 2 MB together."""
STRIPS = 3
SEVERAL = 6
"""Frames that are shown of a window, where a method does not see a single one."""


@dataclass(frozen=True)
class Strip:
    """A clip from its beginning to its end."""

    picture: Picture
    heard: Heard
    name: str
    place: str


@dataclass(frozen=True)
class Training:
    """How the runs of a method went."""

    method: str
    said: list[verdicts.Said]
    drawn: list[tuple[str, str, Markup]]
    """The curves: title, explanation and drawing of each."""
    picture: Picture | None
    """What the first seed's method makes of a few clips."""


@dataclass(frozen=True)
class Look:
    """One run."""

    title: str
    seconds: float
    """Of a clip."""
    strips: list[Strip]
    kind: scores.Kind | None
    """Of wrong pairs; None without decisions."""
    threshold: float | None
    decisions: list[Decided]
    searches: list[tuple[str, list[Search]]]
    labelled: bool
    maps: list[Located]


def section(runs: Correspondences, method: str, seed: int) -> dict[str, Any] | None:
    """What the page tells of methods for clips, None where none was run.

    To look at, there is the method `method`, if it is among them, by the first seed that has run; `seed` chooses clips.
    """
    if not runs.methods:
        return None
    facts = next(found for name in runs.methods if (found := runs.any(name)))
    return {
        "sentences": claims.sentences(runs),
        "trainings": [_training(name, runs.seeds) for name in runs.methods],
        "facts": {name: int(facts[name]) for name in ("clips", "test_clips", "test_sources") if name in facts},
        "tasks": list(runs.tasks()),
        "retrieval": runs.retrieval(),
        "depths": scores.DEPTHS,
        "wanted": scores.WANTED,
        "pointing": runs.pointing(),
        "pointed": scores.POINTED,
        "probes": runs.probes(),
        "probed": scores.PROBED,
        "look": _look(runs, method if method in runs.methods else runs.methods[0], seed),
    }


def _training(method: str, seeds: Sequence[int]) -> Training:
    said = dict(verdicts.collect([method], seeds, paths.OF_CLIPS)).get(method, [])
    drawn = curves.charts(method, seeds, paths.OF_CLIPS)
    return Training(method, said, drawn, sheet(paths.pictures(method, seeds[0], paths.OF_CLIPS)))


def _look(runs: Correspondences, method: str, seed: int) -> Look | None:
    number = next((one for one in runs.seeds if paths.examined(method, one).is_dir()), None)
    where = paths.clips(str(lookup(runs.params, "pretrain_clips").get("clips")))
    if number is None or not (where / "dataset.json").exists():
        return None
    clips, folder = Dataset[ClipFormat](where), paths.examined(method, number)
    files = {name: folder / f"{name}.parquet" for name in ("decisions", "retrieval")}
    maps = folder / "maps.safetensors"
    views = lookup(runs.params, f"clip_methods.{method}.views", over="clip_views")
    window = views.get("window", schema(ClipViews)["window"].default)
    single = maps.exists() or not files["retrieval"].exists()
    moments = Moments(clips, float(window), 1 if single else SEVERAL)
    threshold = runs.metrics(method, number).get("threshold")
    players = {part: Player(room) for part, room in ROOM.items()}
    has = {name: file.exists() for name, file in files.items()}
    if not has["retrieval"]:
        players["decisions"].left += ROOM["searches"] + ROOM["maps"]
    return Look(
        paths.run_name(method, number),
        clips.format.seconds,
        _strips(moments, seed, players["strips"]),
        scores.kind_of(files["decisions"]) if has["decisions"] else None,
        threshold,
        decided(files["decisions"], moments, method, threshold, players["decisions"]) if has["decisions"] else [],
        searches(files["retrieval"], moments, seed, players["searches"]) if has["retrieval"] else [],
        bool((clips.labels[clips.rows(TEST)] >= 0).any()),
        located(maps, moments, seed, players["maps"]) if maps.exists() else [],
    )


def _strips(moments: Moments, seed: int, player: Player) -> list[Strip]:
    """Test clips by chance, of different sources where there are some."""
    clips = moments.clips
    rows = clips.rows(TEST)
    rows = rows[permutation(len(rows), seed, "report", "strips").numpy()]
    first = np.sort(np.unique(clips.groups[rows], return_index=True)[1])
    chosen = np.concatenate([rows[first], np.delete(rows, first)])[:STRIPS]
    return [
        Strip(moments.strip(row), moments.whole(row, player), moments.name(row), moments.place(row))
        for row in chosen.tolist()
    ]
