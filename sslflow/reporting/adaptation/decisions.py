"""One adaptation run to look at: which images it kept and rejected, rightly or wrongly, and in which groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from sslflow.adaptation.task import Task
from sslflow.drawing.contact_sheet import contact_sheet
from sslflow.drawing.embedded import Picture, image, picture
from sslflow.drawing.svg import histograms
from sslflow.runtime.rng import permutation
from sslflow.runtime.tables import read_parquet

SAMPLES = 12
"""Images of each decision, and of each group."""
GROUPS = 12
"""Largest groups that are shown."""
CELL = 64
"""Pixels: the widest thumbnail."""


@dataclass(frozen=True)
class Decisions:
    """What a run said about `n` images of the target, and what is true of them."""

    classes: tuple[str, ...]
    """Of the source."""
    predicted: np.ndarray
    """A class or `unknown`, `(n,)` str."""
    nearest: np.ndarray
    """The class without rejection, `(n,)` str."""
    unknownness: np.ndarray
    groups: np.ndarray
    """Group of each rejected image, −1 for the others; `(n,)` int64."""
    actual: np.ndarray
    """The true class, '' where nobody knows; `(n,)` str."""
    paths: list[str]

    @property
    def rejected(self) -> np.ndarray:
        """Which images were said to be of no class, `(n,)` bool. (A class may be called `unknown`, too.)"""
        return self.groups >= 0

    @property
    def group_count(self) -> int:
        """Groups among the rejected images."""
        return len(set(self.groups[self.rejected].tolist()))

    @property
    def labelled(self) -> np.ndarray:
        """Which images have a label, `(n,)` bool."""
        return self.actual != ""

    @property
    def known(self) -> np.ndarray:
        """Which images are of a class of the source, `(n,)` bool; False where nobody knows."""
        return np.isin(self.actual, self.classes)

    @property
    def unknown(self) -> np.ndarray:
        """Which images are of a class that the source lacks, `(n,)` bool; False where nobody knows."""
        return self.labelled & ~self.known


@dataclass(frozen=True)
class Figure:
    """A small picture with a caption, and its name for who points at it."""

    picture: Picture
    caption: str
    name: str


def read_decisions(file: Path, task: Task) -> Decisions:
    """The rows of an adaptation's file. Raises `ValueError` where it is not about the task's images."""
    table = read_parquet(file)
    paths = table["path"].to_pylist()
    if paths != task.target.column("path", task.target_rows).tolist():
        raise ValueError(f"{file}: not about the images in {task.target.folder}; run `dvc repro`")
    words = {name: np.array(table[name].to_pylist(), dtype=str) for name in ("predicted", "nearest_class", "actual")}
    return Decisions(
        task.classes,
        words["predicted"],
        words["nearest_class"],
        table["unknownness"].to_numpy(),
        table["group"].to_numpy(),
        words["actual"],
        paths,
    )


def kinds(made: Decisions) -> list[tuple[str, np.ndarray, int]]:
    """A title, rows to choose from, surest first, and a count, for each kind of decision.

    Where the target has labels, right and wrong are apart; where it has none, the surest and the least sure.
    """
    kept, refused = ~made.rejected, made.rejected
    if not made.labelled.any():
        halves = []
        for title, rows in (("Kept", _ordered(made, kept)), ("Rejected", _ordered(made, refused))):
            halves.append((f"{title}, surest", rows[:SAMPLES], len(rows)))
            halves.append((f"{title}, least sure", rows[SAMPLES:][-SAMPLES:], len(rows)))
        return halves
    known, unknown, right = made.known, made.unknown, made.predicted == made.actual
    masks = {
        "Known, recognised": known & kept & right,
        "Known, given a wrong class": known & kept & ~right,
        "Known, but rejected": known & refused,
        "Unknown, rejected": unknown & refused,
        "Unknown, but given a class": unknown & kept,
    }
    return [(title, _ordered(made, mask), int(mask.sum())) for title, mask in masks.items()]


def _ordered(made: Decisions, mask: np.ndarray) -> np.ndarray:
    """The rows, what was decided most surely first: the kept from the least unknownness, the rejected from the most."""
    rows = np.flatnonzero(mask)
    values = np.where(made.rejected[rows], -made.unknownness[rows], made.unknownness[rows])
    return rows[np.argsort(values, kind="stable")]


def samples(made: Decisions, task: Task) -> list[tuple[str, int, list[Figure]]]:
    """Title, count and some images of each kind of decision that occurs, spread evenly from the surest to the least
    sure."""
    found = []
    for title, rows, count in kinds(made):
        if len(rows):
            shown = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLES).round().astype(int))]
            pixels = task.target.read(task.target_rows[shown])["images"].numpy()
            figures = [
                Figure(picture(_thumbnail(one), quality=85), _caption(made, row), made.paths[row])
                for one, row in zip(pixels, shown, strict=True)
            ]
            found.append((title, count, figures))
    return found


def _caption(made: Decisions, row: int) -> str:
    """The true class, and the answer where it is another class; without a label, the answer, or the nearest class."""
    actual, answer = str(made.actual[row]), str(made.predicted[row])
    if made.rejected[row]:
        return actual or f"near {made.nearest[row]}"
    return answer if actual in ("", answer) else f"{actual} → {answer}"


def groups(made: Decisions, task: Task, seed: int) -> list[tuple[str, Picture]]:
    """What each of the largest groups is, in words, and some of its images side by side."""
    found = []
    sizes = Counter(sorted(made.groups[made.rejected].tolist()))
    for number, count in sizes.most_common(GROUPS):
        rows = np.flatnonzero(made.groups == number)
        shown = rows[np.sort(permutation(len(rows), seed, "report", "group", number).numpy()[:SAMPLES])]
        pixels = task.target.read(task.target_rows[shown])["images"].numpy()
        small = [np.atleast_3d(np.asarray(_thumbnail(one))).transpose(2, 0, 1) for one in pixels]
        words = f"Group {number}: {count:,} image{'s' * (count > 1)}"
        classes = Counter(name for name in made.actual[rows].tolist() if name).most_common(3)
        if classes:
            shares = ", ".join(f"{name} ({100 * of / count:.0f} %)" for name, of in classes)
            words += f", most often {shares}"
        found.append(
            (words, picture(contact_sheet(np.stack(small), columns=SAMPLES, scale=max(1, CELL // small[0].shape[1]))))
        )
    return found


def _thumbnail(pixels: np.ndarray) -> Image.Image:
    small = image(pixels)
    small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    return small


def histogram(made: Decisions, threshold: float | None) -> Markup:
    """How unknown the images are, known and unknown ones apart where labels tell, and where rejection begins."""
    label = f"Unknownness of {len(made.paths)} images, of which {int(made.rejected.sum())} were rejected"
    bars = {"all": made.unknownness}
    if made.labelled.any():
        bars = {"known": made.unknownness[made.known], "unknown": made.unknownness[made.unknown]}
    return histograms({name: values for name, values in bars.items() if len(values)}, threshold, label)
