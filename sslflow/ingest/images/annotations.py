"""Masks and boxes for images of a folder, from files beside them: what is to train on and to test on, and as a pool.
Imports no torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from sslflow.data.classes import hardly_differing
from sslflow.data.splits import TEST, TRAIN, Split, held_out
from sslflow.ingest.images import folders, layout
from sslflow.ingest.images.coco import read_coco
from sslflow.ingest.images.matching import Names, Told
from sslflow.ingest.images.voc import NO_IMAGES, read_voc
from sslflow.ingest.records import LEFT_OUT, Annotation, Flaw, Item, Masks, Record, Source
from sslflow.settings.params import closest

KINDS = ("masks", "coco", "voc")
_NOTHING = Masks()


def annotation_places(annotations: str, annotations_test: str = "") -> dict[str, Path]:
    """The file or folder that each setting names, by the setting's name without its section. Raises `ValueError` for a
    kind that there is not, and where one isn't there."""
    found: dict[str, Path] = {}
    kind = ""
    for setting, text in (("annotations", annotations), ("annotations_test", annotations_test)):
        if not text:
            continue
        kind, colon, place = text.partition(":")
        if kind not in KINDS or not place:
            near = closest(kind, KINDS) if colon and kind not in KINDS else ""
            raise ValueError(f"data.{setting}: expected masks:FOLDER, coco:FILE.json or voc:FOLDER, found {text}{near}")
        if setting == "annotations_test" and (kind != "coco" or not annotations.startswith("coco:")):
            raise ValueError(
                "data.annotations_test is a second file of COCO's beside the first one, coco:FILE.json in both; masks "
                "and VOC are divided by folders train/ and test/, by ImageSets, or by data.test_fraction"
            )
        found[setting] = Path(place)
        if not Path(place).exists() or Path(place).is_file() != (kind == "coco"):
            raise ValueError(f"data.{setting}: there is no {'file' if kind == 'coco' else 'folder'} {place}")
    return found


def check_annotations(
    annotations: str, annotations_test: str, masks: Masks, *, source: str, labels: str, probe_source: str
) -> bool:
    """Whether images are annotated, by settings of `data`. Raises `ValueError` where these don't go together, or name
    a file or a folder that isn't there."""
    if not annotations:
        if annotations_test or masks != _NOTHING:
            what = "data.annotations_test" if annotations_test else "data.masks"
            raise ValueError(f"{what} says more of data.annotations, which is '': set that, too, or leave this out")
        return False
    annotation_places(annotations, annotations_test)
    if source != "folder":
        raise ValueError(
            f"data.annotations is for data.source folder, found {source}; set it to folder, for images in class "
            "folders, too: their names are not used then"
        )
    if labels:
        raise ValueError(
            "data.annotations and data.labels each divide the images in their own way: leave one of them ''"
        )
    if probe_source != "same":
        raise ValueError(
            "data.annotations is of the images in data.path, to be tested on: set data.probe_source to same"
        )
    if annotations.startswith("coco:") and masks != _NOTHING:
        raise ValueError(
            "data.masks is for masks: and voc:; of coco: the file says which classes there are: leave it out"
        )
    return True


def annotated_folder(
    root: Path,
    annotations: str,
    annotations_test: str,
    masks: Masks,
    seed: int,
    test_fraction: float,
    others: Sequence[Path] = (),
) -> Source:
    """The images below `root`: those that are annotated, to train on and to test on, and as a pool all others and,
    where there are others, those to train on as well. Pictures in the folders of masks, and in `others`,
    are none of them.

    Which are to test on say the files, or folders `train` and `test` (or `val`), or else a hash: `test_fraction` of the
    annotated ones. Raises `ValueError` where the files can't be understood.
    """
    places = annotation_places(annotations, annotations_test)
    kind, place = annotations.partition(":")[0], places["annotations"]
    beside = {"masks": [place], "voc": [place / name for name in NO_IMAGES], "coco": []}[kind]
    whole = folders.folder(root, below(root, (*beside, *others)))
    names = Names(item.name for item in whole.records() if isinstance(item, Record))
    if kind == "coco":
        told = read_coco(place, places.get("annotations_test"), names)
    elif kind == "voc":
        told = read_voc(place, names, masks)
    else:
        told = _read_masks(place, names, masks)
    splits = told.splits or divided(told.annotations, seed, test_fraction)
    notes = [*whole.notes, *told.notes, *(f"warning: {line}" for line in hardly_differing(told.thing_classes))]
    counts = Counter(splits.values())
    rest = len(names.all) - len(told.annotations)
    notes.append(
        f"annotated: {len(told.annotations):,} of {len(names.all):,} images, {counts[TEST]:,} of them to test on"
        + (f"; the other {rest:,} are learnt from without" if rest else "")
    )
    return Source(
        (),
        partial(_records, whole, told.annotations, splits),
        tuple(notes),
        masks=told.masks,
        thing_classes=told.thing_classes,
        flaws=tuple(told.flaws),
    )


def _records(whole: Source, annotations: Mapping[str, Annotation], splits: Mapping[str, Split]) -> Iterator[Item]:
    items = list(whole.records())
    images = [item for item in items if isinstance(item, Record)]
    for split in (TEST, TRAIN):
        for item in images:
            if splits.get(item.name) == split:
                yield Record(item.name, split, item.picture, truth=annotations[item.name])
    pooled = len(annotations) < len(images)
    for item in items:
        if not isinstance(item, Record) or (pooled and splits.get(item.name) != TEST):
            yield item


def divided(names: Iterable[str], seed: int, test_fraction: float) -> dict[str, Split]:
    """Which images are to train and to test on: by the folders `train` and `test`, or `val`, in which they lie, where
    all lie in such; or else a hash decides."""
    names = list(names)
    return by_folder(names) or _drawn(names, seed, test_fraction)


def by_folder(names: Iterable[str]) -> dict[str, Split] | None:
    tops = {name: name.partition("/")[0].strip().lower() if "/" in name else "" for name in names}
    there = set(tops.values())
    train, test, validation = (
        there & {*names} for names in (layout.TRAIN_NAMES, layout.TEST_NAMES, layout.VALIDATION_NAMES)
    )
    if not train or not (test or validation) or there - train - test - validation:
        return None
    tested = test or validation
    return {name: TEST if top in tested else TRAIN for name, top in tops.items()}


def _drawn(names: Iterable[str], seed: int, test_fraction: float) -> dict[str, Split]:
    names = sorted(names)
    tested = {names[row] for row in held_out(names, [0] * len(names), test_fraction, seed)}
    return {name: TEST if name in tested else TRAIN for name in names}


def _read_masks(root: Path, names: Names, masks: Masks) -> Told:
    """Masks that are called as their images, in the same folders below their own."""
    annotations: dict[str, Annotation] = {}
    flaws: list[Flaw] = []
    others = 0
    for folder in folders.visit(root):
        for file in folder.files:
            path = f"{folder.path}{file}"
            if not file.lower().endswith(".png"):
                others += 1
                continue
            try:
                name = names.find_stem(path[:-4])
            except LookupError as reason:
                flaws.append(Flaw(path, f"mask without an image: {reason}", LEFT_OUT))
                continue
            several = f"image of several masks: {path}" if name in annotations else ""
            annotations[name] = Annotation(root / path, unusable=several)
    if not annotations:
        found = f"{len(flaws):,} PNG files, none of them called as an image below data.path" if flaws else "no PNG file"
        raise ValueError(
            f"data.annotations: {root}: expected masks, a PNG for each image with the same name but for its ending, "
            f"found {found}{f' ({flaws[0].name})' if flaws else ''}, and {others:,} other files"
        )
    notes = [f"{root}: masks of {len(annotations):,} images"]
    if others:
        notes.append(f"warning: {root}: {others:,} files there are no PNG, and no masks")
    return Told(annotations, masks, (), None, flaws, notes)


def below(root: Path, places: Iterable[Path]) -> tuple[str, ...]:
    """Those of the folders that lie somewhere in `root`, relative to it and with a slash at the end."""
    return tuple(f"{os.path.relpath(one, root)}/" for one in places if is_below(one, root))


def is_below(place: Path, root: Path) -> bool:
    """Whether a folder lies somewhere in another one."""
    return root.resolve() in place.resolve().parents
