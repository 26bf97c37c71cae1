"""What one run finds: the first answers to a sound among pictures, and to a picture among sounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sslflow.drawing.embedded import Picture
from sslflow.reporting.clips.moments import Heard, Moments
from sslflow.reporting.clips.pairings import fits
from sslflow.reporting.clips.sounds import Player
from sslflow.runtime.rng import permutation
from sslflow.runtime.tables import read_parquet

QUERIES = 4
"""Of either kind."""
ANSWERS = 4
"""Of each query; of sounds, which take room, to half of the queries."""


@dataclass(frozen=True)
class Item:
    """A query or an answer: a picture or a sound."""

    picture: Picture | None
    heard: Heard | None
    name: str
    place: str
    verdict: Literal["", "own", "same", "other"] = ""
    """Of an answer: the query's other half, another of its class, or of another class or source."""
    score: float = 0.0


@dataclass(frozen=True)
class Search:
    """A query, and what was found for it, the best first."""

    query: Item
    answers: list[Item]


def searches(file: Path, moments: Moments, seed: int, player: Player) -> list[tuple[str, list[Search]]]:
    """Searches for pictures by a sound, then for sounds by a picture, the queries by chance. Raises `ValueError` for a
    table about other clips."""
    table = read_parquet(file)
    fits(file, table, moments)
    found = []
    rows = table.to_pylist()
    for asked, title, count in (("sound", "By a sound", QUERIES), ("picture", "By a picture", QUERIES // 2)):
        own = [row for row in rows if row["asked"] == asked]
        clips = np.array(sorted({row["clip"] for row in own}))
        queries = clips[permutation(len(clips), seed, "report", "retrieval").numpy()[:count]]
        lines = []
        for query in queries.tolist():
            answers = sorted((row for row in own if row["clip"] == query), key=lambda row: row["rank"])[:ANSWERS]
            lines.append(_search(asked, answers, moments, player))
        if lines:
            found.append((title, lines))
    return found


def _search(asked: str, answers: list[dict], moments: Moments, player: Player) -> Search:
    other = "picture" if asked == "sound" else "sound"
    query = _item(asked, answers[0]["clip"], answers[0]["start"], moments, player)
    return Search(
        query,
        [
            _item(
                other,
                row["found"],
                row["found_start"],
                moments,
                player,
                "own" if row["own"] else "same" if row["same_class"] else "other",
                row["score"],
            )
            for row in answers
        ],
    )


def _item(
    kind: str,
    clip: int,
    start: float,
    moments: Moments,
    player: Player,
    verdict: Literal["", "own", "same", "other"] = "",
    score: float = 0.0,
) -> Item:
    seen = moments.seen(clip, start) if kind == "picture" else None
    heard = moments.heard(clip, start, player) if kind == "sound" else None
    return Item(seen, heard, moments.name(clip), moments.place(clip, start), verdict, score)
