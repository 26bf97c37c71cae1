"""Folders of image files: as one heap without labels, or with a folder for each class."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from sslflow.data.classes import class_name, shown
from sslflow.data.splits import POOL, TEST, TRAIN, Split, held_out
from sslflow.ingest.images import layout
from sslflow.ingest.images.kinds import is_picture
from sslflow.ingest.images.layout import ClassFolder, Words
from sslflow.ingest.images.made_by_systems import made_by_a_system, passed
from sslflow.ingest.records import Item, Other, Passed, Record, Rejected, Source, escape

Identity = tuple[int, int]
"""Of a real folder: device and inode."""


def folder(root: Path, without: tuple[str, ...] = ()) -> Source:
    """Every image below `root` at any depth, without labels, as a pool; what lies in the folders `without`, relative to
    it and with a slash at the end, counts as other files."""

    return Source((), partial(images, root, without), tuple(_aside(root, without)))


def images(root: Path, without: tuple[str, ...] = ()) -> Iterator[Item]:
    """The images of `folder`, one by one, and what else is there."""
    for item in _walk(root, ""):
        if not isinstance(item, str):
            yield item
        else:
            yield Other(item) if item.startswith(without) else Record(item, POOL, root / item)


def _aside(root: Path, without: tuple[str, ...]) -> Iterator[str]:
    """A warning of folders that hold what goes with images."""
    found: Counter[str] = Counter()
    for path, count in _counts(root, {}).items():
        name = path.rstrip("/").rpartition("/")[2]
        if layout.beside_images(name) and not path.startswith(without):
            found[escape(name)] += count
    if found:
        names = shown(f"{name} ({count:,})" for name, count in found.items())
        yield f"warning: {root}: images in folders called {names} are learnt from, too; if they aren't meant, move them"


def imagefolder(root: Path, *, seed: int, test_fraction: float, words: Words | None = None) -> Source:
    """Class folders, images at any depth in them; either below `train/` and `test/` (or `val/`), or split by `seed`.

    Where there are both `test/` and `val/`, `val/` belongs to what is trained on. Folders whose names are the same
    letters are of one class. `words` are for what it says of the layout. Raises `ValueError` where there are no class
    folders.
    """
    words = words or Words()
    otherwise = f"; for images without labels {words.unlabelled}" if words.unlabelled else ""
    places, elsewhere = _places(root)
    every = list(chain(*places.values()))
    directories = [directory for place in every for directory in _folders(place)]
    if not directories:
        raise ValueError(f"{root}: expected a folder for each class, found none{otherwise}")
    known = dict(filter(None, map(_identity, [root, *every, *directories])))
    found = {
        place: [_class_folder(root, directory, known) for directory in directories if directory.parent == place]
        for place in every
    }
    classes = tuple(sorted({one.name for own in found.values() for one in own if one.count}))
    if not classes:
        raise ValueError(
            f"{root}: there are {len(directories)} class folders here, and no image in any of them{otherwise}"
        )
    numbers = {name: number for number, name in enumerate(classes)}

    def records() -> Iterator[Item]:
        if root not in every:
            yield from _loose(root, root)
        for place in elsewhere:
            yield from (Other(item) if isinstance(item, str) else item for item in _walk(place, f"{place.name}/"))
        for place in every:
            yield from _loose(place, root)
        for split in (TEST, TRAIN):
            for place in places.get(split if TEST in places else TRAIN, []):
                by_class: defaultdict[str, list[str]] = defaultdict(list)
                for one in found[place]:
                    by_class[one.name].append(one.place)
                for name, own in by_class.items():
                    yield from _class(name, own, split)

    def _class(name: str, folders: list[str], split: Split) -> Iterator[Item]:
        """The images of one class in one split; what is not an image is reported once, with the training split."""
        items = [item for place in folders for item in _walk(root / place, place, known)]
        images = [item for item in items if isinstance(item, str)]
        if TEST in places:
            chosen = set(images)
        else:
            test = {images[row] for row in held_out(images, [0] * len(images), test_fraction, seed)}
            chosen = test if split == TEST else set(images) - test
        if split == TRAIN or TEST in places:
            yield from (item for item in items if not isinstance(item, str))
        yield from (Record(image, split, root / image, numbers[name]) for image in images if image in chosen)

    by_place = {f"{place.relative_to(root)}/".removeprefix("./"): own for place, own in found.items()}
    tested = [f"{place.relative_to(root)}/" for place in places.get(TEST, [])]
    notes = [
        *layout.notes(root, list(chain(*found.values())), words),
        *_splits(root, places),
        *_unused(root, places, elsewhere),
    ]
    return Source(classes, records, tuple(notes), layout.doubt(root, by_place, words, tested))


def _places(root: Path) -> tuple[dict[Split, list[Path]], list[Path]]:
    """The folders that hold class folders, of each split where both one to train on and one to test on (or to validate
    on) are there; and the folders beside those."""
    folders = _folders(root)
    train, test, validation = (
        [place for place in folders if place.name.strip().lower() in names]
        for names in (layout.TRAIN_NAMES, layout.TEST_NAMES, layout.VALIDATION_NAMES)
    )
    if train and (test or validation):
        places: dict[Split, list[Path]] = (
            {TEST: test, TRAIN: train + validation} if test else {TEST: validation, TRAIN: train}
        )
        return places, [place for place in folders if place not in chain(*places.values())]
    return {TRAIN: [train[0] if train == folders and len(folders) == 1 else root]}, []


def _splits(root: Path, places: Mapping[Split, Sequence[Path]]) -> Iterator[str]:
    """Which folders are trained on and which are tested on, where they say so by their names."""
    if TEST in places:
        train, test = (shown(f"{escape(place.name)}/" for place in places[split]) for split in (TRAIN, TEST))
        yield f"{root}: trained on is {train}, tested on is {test}"


def _unused(root: Path, places: Mapping[Split, Sequence[Path]], elsewhere: Sequence[Path]) -> Iterator[str]:
    """Warnings of images that are not in a class folder."""
    every = list(chain(*places.values()))
    loose = [
        item.name
        for place in dict.fromkeys([root, *every])
        for item in _loose(place, root)
        if isinstance(item, Rejected)
    ]
    if loose:
        names = shown(map(escape, loose), 3)
        yield f"warning: {root}: {len(loose):,} images lie beside the class folders and are put aside: {names}"
    counts = {escape(place.name): sum(_counts(place, {}).values()) for place in elsewhere}
    if any(counts.values()):
        names = shown(f"{name}/ ({count:,} images)" for name, count in counts.items() if count)
        beside = shown(f"{escape(place.name)}/" for place in every)
        yield (
            f"warning: {root}: beside {beside} these are not used: {names}; to pretrain on them let data.path be such "
            "a folder, with data.source folder, and data.probe_path this one"
        )


def _class_folder(root: Path, directory: Path, known: Mapping[Identity, str]) -> ClassFolder:
    place = f"{directory.relative_to(root)}/"
    return ClassFolder(escape(class_name(directory.name)), place, _counts(directory, known))


def _counts(root: Path, known: Mapping[Identity, str]) -> dict[str, int]:
    """Folder below `root` → number of images directly in it, where there are any."""
    found = {one.path: sum(is_picture(root / one.path / name) for name in one.files) for one in visit(root, known)}
    return {path: count for path, count in found.items() if count}


def _folders(place: Path) -> list[Path]:
    with os.scandir(place) as entries:
        return sorted(
            place / entry.name
            for entry in entries
            if _is_folder(entry) and not made_by_a_system(entry.name, place.name, is_folder=True)
        )


def _loose(place: Path, root: Path) -> Iterator[Item]:
    """What lies in a folder in which only class folders are expected, besides these."""
    with os.scandir(place) as entries:
        found = sorted((entry.name, _is_folder(entry)) for entry in entries)
    for name, is_folder in found:
        relative = str((place / name).relative_to(root))
        if made_by_a_system(name, place.name, is_folder=is_folder):
            yield passed(place / name, relative)
        elif not is_folder:
            yield Rejected(relative, "not in a class folder") if is_picture(place / name) else Other(relative)


def _walk(
    root: Path, prefix: str, known: Mapping[Identity, str] | None = None
) -> Iterator[str | Rejected | Other | Passed]:
    """Names of the image files below `root`, each after `prefix`, in the order of `visit`."""
    for folder in visit(root, known):
        if folder.unreadable:
            yield Rejected(f"{prefix}{folder.path}".rstrip("/") or ".", f"folder not readable: {folder.unreadable}")
        for name in folder.passed:
            yield passed(root / folder.path / name, f"{prefix}{folder.path}{name}")
        for name in folder.files:
            shown_as = f"{prefix}{folder.path}{name}"
            yield shown_as if is_picture(root / folder.path / name) else Other(shown_as)


@dataclass(frozen=True)
class Visited:
    """A folder on the way through all folders below another one."""

    path: str
    """Relative to where the way began: `""` there, else with a slash at its end."""
    files: tuple[str, ...] = ()
    """Names of what is no folder and not passed over, in the order of their bytes; broken links are among them."""
    passed: tuple[str, ...] = ()
    """Names of the files and folders that are passed over."""
    same_as: str | None = None
    """The path under which this folder's files have been told already."""
    unreadable: str = ""
    """Why it can't be read."""


def visit(root: Path, known: Mapping[Identity, str] | None = None) -> Iterator[Visited]:
    """`root` and the folders below it, in the order of their bytes, each before its own.

    What is hidden and what systems make is passed over. Links are followed wherever they lead (that is how people and
    DVC build folders of images), but each real folder is entered once only, so a loop of links ends; those that are
    `known` and told elsewhere, besides `root` itself, are not entered.
    """
    seen = dict(known or {})
    own = _identity(root)
    if own:
        seen.pop(own[0], None)
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
                    ((entry.name, _is_folder(entry)) for entry in entries), key=lambda pair: os.fsencode(pair[0])
                )
        except OSError as error:
            yield Visited(path, unreadable=error.strerror or "for no reason that the system would tell")
            continue
        parent = (root / path).name
        made = {name for name, is_folder in found if made_by_a_system(name, parent, is_folder=is_folder)}
        files = tuple(name for name, is_folder in found if not is_folder and name not in made)
        yield Visited(path, files, tuple(sorted(made, key=os.fsencode)))
        stack.append(iter([f"{path}{name}/" for name, is_folder in found if is_folder and name not in made]))


def _identity(folder: Path) -> tuple[Identity, str] | None:
    """Which real folder it is, and its name; None where it can't be asked."""
    try:
        facts = folder.stat()
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino), folder.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads in a circle is a file, one that can't be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False
