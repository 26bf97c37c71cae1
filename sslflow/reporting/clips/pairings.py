"""One run's decisions about test clips: what it took for a pair, rightly or wrongly, to look at and to listen to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from sslflow.drawing.embedded import Picture
from sslflow.reporting.clips.moments import WIDTH, Heard, Moments
from sslflow.reporting.clips.results import Kind, kind_of
from sslflow.reporting.clips.sounds import Player
from sslflow.runtime.tables import read_parquet

SAMPLES = 3
"""Decisions of each kind."""
OWN_SAMPLES = 5
"""The same of a task of its own, of which there are two kinds."""
TITLES = {
    "source": {
        (True, True): "Belong together, recognised",
        (True, False): "Belong together, but parted",
        (False, True): "Of different sources, parted",
        (False, False): "Of different sources, but taken for one",
    },
    "moment": {
        (True, True): "Of the same moment, recognised",
        (True, False): "Of the same moment, but parted",
        (False, True): "Of two moments, parted",
        (False, False): "Of two moments, but taken for one",
    },
}
"""By whether picture and sound belong together, and whether the decision is right."""
ANSWERS = {"temporal_order": ("not in order", "in order")}
"""What the numbers of answers mean; else they are kinds of sound."""


@dataclass(frozen=True)
class Decision:
    """A picture, a sound and what was said of them."""

    picture: Picture
    heard: Heard
    caption: str
    place: str
    score: float = 0.0
    """Of a pair."""
    said: str = ""
    """The answer in a task of its own."""


@dataclass(frozen=True)
class Decided:
    """Decisions of one kind."""

    title: str
    count: int
    decisions: list[Decision]
    """From the surest to the least sure."""


def decided(file: Path, moments: Moments, method: str, threshold: float | None, player: Player) -> list[Decided]:
    """Some decisions of each kind that occurs, spread evenly from the surest to the least sure. Raises `ValueError` for
    decisions about other clips."""
    table, kind = read_parquet(file), kind_of(file)
    fits(file, table, moments)
    return _own(table, moments, method, player) if kind == "own" else _pairs(table, kind, moments, threshold, player)


def fits(file: Path, table: pa.Table, moments: Moments) -> None:
    """Raises `ValueError` for a table that tells of clips which there are not."""
    for name in ("clip", "sound_clip", "found"):
        if name in table.column_names:
            found = table[name].to_numpy()
            if len(found) and not 0 <= found.min() <= found.max() < len(moments.clips):
                raise ValueError(f"{file}: not about the clips in {moments.clips.folder}; run `dvc repro`")


def _pairs(table: pa.Table, kind: Kind, moments: Moments, threshold: float | None, player: Player) -> list[Decided]:
    same, right = (table[name].to_numpy(zero_copy_only=False).astype(bool) for name in ("same", "right"))
    scores = table["score"].to_numpy()
    if not len(scores):
        return []
    sure = np.abs(scores - (float(np.median(scores)) if threshold is None else threshold))
    chosen = [
        (title, mask, _spread(mask, sure))
        for (together, well), title in TITLES[kind].items()
        if (mask := (same == together) & (right == well)).any()
    ]
    found = []
    for title, mask, rows in chosen:
        decisions = []
        for row in table.take(rows).to_pylist():
            clip, sound = row["clip"], row["sound_clip"]
            other = "" if row["same"] or kind == "moment" else f", {moments.name(sound)}'s sound"
            decisions.append(
                Decision(
                    moments.seen(clip, row["start"]),
                    moments.heard(sound, row["sound_start"], player),
                    f"{moments.name(clip)}{other}",
                    f"picture: {moments.place(clip, row['start'])}; sound: {moments.place(sound, row['sound_start'])}",
                    score=row["score"],
                )
            )
        found.append(Decided(title, int(mask.sum()), decisions))
    return found


def _own(table: pa.Table, moments: Moments, method: str, player: Player) -> list[Decided]:
    right = table["given"].to_numpy() == table["right"].to_numpy()
    sure = table["confidence"].to_numpy()
    found = []
    for title, mask in (("Right", right), ("Wrong", ~right)):
        if not mask.any():
            continue
        decisions = [
            Decision(
                moments.strip(row["clip"], 9, 3),
                moments.whole(row["clip"], player, WIDTH, WIDTH // 2),
                moments.name(row["clip"]),
                moments.place(row["clip"]),
                said=_answer(method, row["given"], row["right"], row["confidence"]),
            )
            for row in table.take(_spread(mask, sure, OWN_SAMPLES)).to_pylist()
        ]
        found.append(Decided(title, int(mask.sum()), decisions))
    return found


def _answer(method: str, given: int, right: int, confidence: float) -> str:
    words = ANSWERS.get(method)
    given_, right_ = (words[one] if words else f"kind {one}" for one in (given, right))
    answer = given_ if given == right else f"{given_}, but it is {right_}"
    return f"{answer} ({100 * confidence:.0f} % sure)"


def _spread(mask: np.ndarray, sure: np.ndarray, count: int = SAMPLES) -> np.ndarray:
    """Rows of the mask, evenly spread from the surest to the least sure."""
    rows = np.flatnonzero(mask)
    rows = rows[np.argsort(-sure[rows], kind="stable")]
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
