"""A task of domain adaptation: labelled images of the source, images of the target, and the answers kept apart."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslflow.data.classes import class_name
from sslflow.data.dataset import Dataset
from sslflow.data.splits import NO_LABEL
from sslflow.runtime.files import read_json
from sslflow.settings.params import closest

AS_IS = "as_is"
SETTINGS = (AS_IS, "cda", "pda", "oda", "opda")
"""`as_is`: all images and classes that there are. The others are experiments, with the items and classes that a split
file gives each domain: closed set, partial (the target lacks classes), open set (the source lacks some), or both."""

UNKNOWN = -1
"""In place of a class: as the truth, one that the source lacks; as a decision, an image that was rejected."""
UNLABELLED = -2
"""In place of a class: nobody knows."""


@dataclass(frozen=True)
class Task:
    """What training may see. It holds no label of the target, so that none can be used."""

    classes: tuple[str, ...]
    """Of the source, those with an image; at least two."""
    source: Dataset
    source_rows: np.ndarray
    """Rows of `source` to learn from, int64 `(m,)`, in manifest order."""
    source_labels: Tensor
    """Index into `classes` of each of these rows, int64 `(m,)`; not always the number that `source.labels` has."""
    target: Dataset
    """Every label is −1 and no class has a name. (In a folder for each class, paths still begin with its name.)"""
    target_rows: np.ndarray
    """Rows of `target` to adapt to and to predict, int64 `(n,)`, of all splits, in manifest order."""


@dataclass(frozen=True)
class Answers:
    """What is true of a task's target rows: for scores only."""

    labels: Tensor
    """Index into the task's classes, `UNKNOWN` or `UNLABELLED`, int64 `(n,)`; classes are matched by name."""
    names: list[str]
    """Of the true classes, `n` of them; empty where there is no label."""


def open_task(folder: Path, setting: str = AS_IS, split: Path | None = None) -> Task:
    """The task in what the stage `domains` put into `folder`; `as_is` needs no `split` file and looks at none, the
    others take the one that ships for these domains where none is given.

    A split file, such as those in data/samples/splits, is JSON: `source` and `target` list items (the last part of an
    image's path), `settings` has lists of class names for each setting and domain. Raises `ValueError` for an unknown
    setting, a split file that is missing or of other data, fewer than two classes, and where no image is left.
    """
    task = _labelled_task(folder, setting, split)
    return replace(task, target=Dataset(task.target.folder, labels=False))


def target_answers(folder: Path, setting: str = AS_IS, split: Path | None = None) -> Answers:
    """The true classes of `open_task`'s target rows, in their order. Errors as there."""
    task = _labelled_task(folder, setting, split)
    labels = task.target.labels[task.target_rows]
    numbers = {name: number for number, name in enumerate(task.classes)}
    of_target = [numbers.get(name, UNKNOWN) for name in task.target.classes]
    return Answers(
        torch.tensor([UNLABELLED if label == NO_LABEL else of_target[label] for label in labels], dtype=torch.int64),
        ["" if label == NO_LABEL else task.target.classes[label] for label in labels],
    )


def _labelled_task(folder: Path, setting: str, split: Path | None) -> Task:
    """The task while the target still has its labels."""
    if setting not in SETTINGS:
        raise ValueError(f"there is no setting '{setting}'{closest(setting, SETTINGS)}")
    if not all((folder / domain / "dataset.json").exists() for domain in ("source", "target")):
        raise ValueError(f"{folder}: no prepared domains here; run `dvc repro domains` first")
    source, target = Dataset(folder / "source"), Dataset(folder / "target")
    source_rows, target_rows = np.flatnonzero(source.labels != NO_LABEL), np.arange(len(target))
    if setting != AS_IS:
        split = split or _default_split(folder)
        if split is None:
            raise ValueError(
                f"setting {setting} needs a split file, which says what each domain shows, or choose {AS_IS}"
            )
        if not target.classes:
            raise ValueError(f"{folder}/target: no labels, which setting {setting} needs to choose by; choose {AS_IS}")
        items, classes = _read_split(split, setting)
        source_rows = _those(source, source_rows, items["source"], classes["source"], f"{split}: source")
        target_rows = _those(target, target_rows, items["target"], classes["target"], f"{split}: target")
    held, labels = np.unique(source.labels[source_rows], return_inverse=True)
    names = tuple(source.classes[number] for number in held)
    if len(names) < 2:
        raise ValueError(
            f"{folder}/source: expected images of two classes or more, found {', '.join(names) or 'none'}; "
            "see quarantine.csv there for images that could not be used"
        )
    return Task(names, source, source_rows, torch.from_numpy(labels), target, target_rows)


def _default_split(folder: Path) -> Path | None:
    facts = folder / "domains.json"
    split = read_json(facts)["split"] if facts.exists() else ""
    return Path(split) if split else None


def _those(dataset: Dataset, rows: np.ndarray, items: Set[str], classes: Set[str], where: str) -> np.ndarray:
    """Of the rows, those that show one of the items and are of one of the classes; at least one."""
    if missing := classes - set(dataset.classes):
        raise ValueError(
            f"{where}: it is for other data: {dataset.folder} has no class {', '.join(sorted(missing))} "
            f"(it has {', '.join(dataset.classes)})"
        )
    wanted = [number for number, name in enumerate(dataset.classes) if name in classes]
    shown = np.array([class_name(path.rpartition("/")[2]) in items for path in dataset.column("path", rows)], bool)
    kept = rows[np.isin(dataset.labels[rows], wanted) & shown]
    if not len(kept):
        raise ValueError(f"{where}: no image of {dataset.folder} is left; is the split file for other data?")
    return kept


def _read_split(file: Path, setting: str) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """Items and classes of each domain, `source` and `target`."""
    try:
        content = read_json(file)
        items, classes = (
            {domain: frozenset(map(class_name, lists[domain])) for domain in ("source", "target")}
            for lists in (content, content["settings"][setting])
        )
        return items, classes
    except FileNotFoundError:
        raise ValueError(f"{file}: there is no such split file") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: not a split file with setting {setting}: expected lists source and target, and the same in "
            f"settings.{setting}; found {type(error).__name__}: {error}"
        ) from None
