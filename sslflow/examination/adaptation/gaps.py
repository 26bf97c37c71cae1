"""How far one adaptation's scores are from another's, with intervals over seeds and target images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from sslflow.evaluation.intervals import Interval, resampled

MARGIN = 0.01
"""One point: where the whole interval is nearer to 0 than this, two methods are level."""
Score = Literal["main", "unk", "os_star"]
Verdict = Literal["better", "worse", "level", "may be chance"]


@dataclass(frozen=True)
class Decided:
    """What one seed decided about the target's labelled images, all `(n,)`."""

    right: np.ndarray
    """Whether the decision is the true class, bool; of unknown images, it means nothing."""
    rejected: np.ndarray
    """Whether it was judged unknown, bool."""


@dataclass(frozen=True)
class Truth:
    """What is true of the target's labelled images, all `(n,)`."""

    known: np.ndarray
    """Whether the class is one of the source's, bool."""
    actual: np.ndarray
    """The true class; of unknown images, it means nothing."""
    groups: np.ndarray
    """Images of one group show the same thing, int64."""

    @cached_property
    def by_class(self) -> tuple[np.ndarray, np.ndarray]:
        """The known images, class by class, and where among them each class begins."""
        rows = np.flatnonzero(self.known)
        rows = rows[np.argsort(self.actual[rows], kind="stable")]
        return rows, np.unique(self.actual[rows], return_index=True)[1]


def gap(score: Score, truth: Truth, ours: Sequence[Decided], theirs: Sequence[Decided]) -> Interval | None:
    """By how much `ours` is above `theirs`, seed by seed and image by image; None where the score isn't defined.

    `main` is H, or without unknown images the accuracy, or without known ones the share rejected. Of one seed it is the
    interval for other images alone.
    """
    known, unknown = bool(truth.known.any()), not truth.known.all()
    needed = {"main": known or unknown, "unk": unknown, "os_star": known}
    if not ours or not needed[score]:
        return None

    def differences(times: np.ndarray) -> np.ndarray:
        pairs = zip(ours, theirs, strict=True)
        return np.stack([_scores(score, truth, a, times) - _scores(score, truth, b, times) for a, b in pairs], axis=1)

    return resampled(differences, truth.groups)


def verdict(found: Interval) -> Verdict:
    """What an interval of a difference lets one say: `level` only where all of it is within `MARGIN`."""
    if found.low > -MARGIN and found.high < MARGIN:
        return "level"
    if found.sure:
        return "better" if found.low > 0 else "worse"
    return "may be chance"


def signed(found: Interval) -> str:
    """`+4.1 (−0.3 to +8.5)`: in points, with the 95 % interval."""
    mean, low, high = (f"{100 * value + 0.0:+.1f}" for value in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})".replace("-", "−").replace("−0.0", "+0.0")


def _scores(score: Score, truth: Truth, made: Decided, times: np.ndarray) -> np.ndarray:
    """The score `(draws,)` where each image counts so many times, `(draws, n)`; NaN where it isn't defined."""
    known = truth.known
    with np.errstate(invalid="ignore", divide="ignore"):
        unk = times[:, ~known] @ made.rejected[~known] / times[:, ~known].sum(axis=1)
        if score == "unk" or not known.any():
            return unk
        if score == "main" and known.all():
            return times @ made.right / times.sum(axis=1)
        rows, starts = truth.by_class
        os_star = _over_classes(starts, made.right[rows], times[:, rows])
        if score == "os_star":
            return os_star
        return np.where(os_star + unk > 0, 2 * os_star * unk / (os_star + unk), np.where(np.isfinite(unk), 0.0, np.nan))


def _over_classes(starts: np.ndarray, right: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean over the classes that are drawn of the share that is right, `(draws,)`; images lie class by class."""
    drawn, hits = (np.add.reduceat(each, starts, axis=1) for each in (times, times * right))
    shares = np.divide(hits, drawn, out=np.zeros_like(drawn), where=drawn > 0)
    return shares.sum(axis=1) / (drawn > 0).sum(axis=1)
