"""Folders of image files: as one heap without labels, or with a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from sslflow.data.splits import POOL, TEST, TRAIN, Split, held_out
from sslflow.ingest.images.kinds import is_picture
from sslflow.ingest.records import Item, Other, Record, Rejected, Source, escape

_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing")
_VALIDATION_NAMES = ("val", "valid", "validation")


def folder(root: Path) -> Source:
    """Every image below `root` at any depth, without labels, as a pool."""

    def records() -> Iterator[Item]:
        for item in _walk(root, ""):
            yield Record(item, POOL, root / item) if isinstance(item, str) else item

    return Source((), records)


def imagefolder(root: Path, *, seed: int, test_fraction: float) -> Source:
    """Class folders, images at any depth in them; either below `train/` and `test/` (or `val/`), or split by `seed`.

    Where there are both `test/` and `val/`, `val/` belongs to what is trained on. Raises `ValueError` where there
    are no class folders.
    """
    places = _explicit(root)
    if places:
        classes = _classes([place for group in places.values() for place in group], root)
        elsewhere = [place for place in _folders(root) if place not in chain(*places.values())]
    else:
        only = _folders(root)
        inner = only[0] if len(only) == 1 and only[0].name.lower() in _TRAIN_NAMES else root
        places, elsewhere = {TRAIN: [inner]}, []
        classes = _classes([inner], root)
    numbers = {name: number for number, name in enumerate(classes)}

    def records() -> Iterator[Item]:
        yield from (item for item in _loose(root, root) if root not in chain(*places.values()))
        for place in elsewhere:
            yield from (Other(item) if isinstance(item, str) else item for item in _walk(place, f"{place.name}/"))
        for place in chain(*places.values()):
            yield from _loose(place, root)
        for split in (TEST, TRAIN):
            for place in places[TRAIN] if TEST not in places else places.get(split, []):
                for directory in _folders(place):
                    yield from _class(directory, split)

    def _class(directory: Path, split: Split) -> Iterator[Item]:
        """The images of one class in one split; what is not an image is reported once, with the training split."""
        items = list(_walk(directory, f"{directory.relative_to(root)}/"))
        names = [item for item in items if isinstance(item, str)]
        if TEST in places:
            chosen = set(names)
        else:
            test = {names[row] for row in held_out(names, [0] * len(names), test_fraction, seed)}
            chosen = test if split == TEST else set(names) - test
        if split == TRAIN or TEST in places:
            yield from (item for item in items if not isinstance(item, str))
        yield from (
            Record(name, split, root / name, numbers[escape(directory.name)]) for name in names if name in chosen
        )

    return Source(classes, records)


def _explicit(root: Path) -> dict[Split, list[Path]]:
    """The folders of each split, where both a training and a test (or validation) folder are there; else nothing."""
    found = {place.name.lower(): place for place in _folders(root)}
    train, test, validation = (
        [found[name] for name in names if name in found] for names in (_TRAIN_NAMES, _TEST_NAMES, _VALIDATION_NAMES)
    )
    if not train or not (test or validation):
        return {}
    return {TEST: test, TRAIN: train + validation} if test else {TEST: validation, TRAIN: train}


def _classes(places: list[Path], root: Path) -> tuple[str, ...]:
    directories = [directory for place in places for directory in _folders(place)]
    if not directories:
        raise ValueError(
            f"{root}: expected a folder for each class, found none; for images without labels set data.source to folder"
        )
    held = {escape(place.name) for place in directories if any(isinstance(item, str) for item in _walk(place, ""))}
    if not held:
        raise ValueError(f"{root}: there are {len(directories)} class folders here, and no image in any of them")
    return tuple(sorted(held))


def _folders(place: Path) -> list[Path]:
    with os.scandir(place) as entries:
        return sorted(place / entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))


def _loose(place: Path, root: Path) -> Iterator[Item]:
    """The files directly in a folder in which only class folders are expected."""
    with os.scandir(place) as entries:
        names = sorted(entry.name for entry in entries if not _is_folder(entry) and not entry.name.startswith("."))
    for name in names:
        shown = str((place / name).relative_to(root))
        yield Rejected(shown, "not in a class folder") if is_picture(place / name) else Other(shown)


def _walk(root: Path, prefix: str) -> Iterator[str | Rejected | Other]:
    """Names of the image files below `root`, each after `prefix`, in the order of `visit`."""
    for folder in visit(root):
        if folder.unreadable:
            yield Rejected(f"{prefix}{folder.path}".rstrip("/") or ".", f"folder not readable: {folder.unreadable}")
        for name in folder.files:
            shown = f"{prefix}{folder.path}{name}"
            yield shown if is_picture(root / folder.path / name) else Other(shown)


@dataclass(frozen=True)
class Visited:
    """A folder on the way through all folders below another one."""

    path: str
    """Relative to where the way began: `""` there, else with a slash at its end."""
    files: tuple[str, ...] = ()
    """Names of what is no folder and not hidden, in the order of their bytes; broken links are among them."""
    same_as: str | None = None
    """The path under which this folder's files have been told already."""
    unreadable: str = ""
    """Why it can't be read."""


def visit(root: Path) -> Iterator[Visited]:
    """`root` and the folders below it, in the order of their bytes, each before its own.

    Hidden files and folders are passed over. Links are followed wherever they lead (that is how people and DVC build
    folders of images), but each real folder is entered once only, so a loop of links ends.
    """
    seen: dict[tuple[int, int], str] = {}
    stack = [iter([""])]
    while stack:
        path = next(stack[-1], None)
        if path is None:
            stack.pop()
            continue
        try:
            facts = (root / path).stat()
            key = (facts.st_dev, facts.st_ino)
            if key in seen:
                yield Visited(path, same_as=seen[key])
                continue
            seen[key] = path
            with os.scandir(root / path) as entries:
                found = sorted(
                    ((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith(".")),
                    key=lambda pair: os.fsencode(pair[0]),
                )
        except OSError as error:
            yield Visited(path, unreadable=error.strerror or "for no reason that the system would tell")
            continue
        yield Visited(path, tuple(name for name, is_folder in found if not is_folder))
        stack.append(iter([f"{path}{name}/" for name, is_folder in found if is_folder]))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads in a circle is a file, one that can't be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False
