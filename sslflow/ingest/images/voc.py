"""Annotations in folders as Pascal VOC has them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sslflow.data.classes import class_name
from sslflow.data.splits import TEST, TRAIN, Split
from sslflow.ingest.images.files import Refused, regular_file
from sslflow.ingest.images.masks import read_mask
from sslflow.ingest.images.matching import MISSING, Names, Told
from sslflow.ingest.records import LEFT_OUT, NO_CLASS, Annotation, Flaw, Masks, Thing

XML, MASKS, LISTS = "Annotations", "SegmentationClass", "ImageSets"
NO_IMAGES = (MASKS, "SegmentationObject")
"""Folders of pictures that are none to learn from."""
OFFICIAL = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
BACKGROUND = "background"
_LOOKED_AT = 200
_AGREEING = 0.8

Box = tuple[str, tuple[float, float, float, float], bool]
"""Class, left, top, right and bottom, and whether it is difficult."""


def read_voc(root: Path, names: Names, masks: Masks) -> Told:
    """What the folder says of images, which are matched by their names without ending. Raises `ValueError` where it is
    no such folder, and where it can't be told which class the numbers in masks are."""
    files, pictures = sorted((root / XML).glob("*.xml")), sorted((root / MASKS).glob("*.png"))
    if not files and not pictures:
        below = [one.name for one in sorted(root.iterdir()) if (one / XML).is_dir() or (one / MASKS).is_dir()]
        hint = f"; there is one in {root / below[0]}" if below else ""
        raise ValueError(f"data.annotations: {root} holds no {XML}/*.xml and no {MASKS}/*.png, as of Pascal VOC{hint}")
    flaws: list[Flaw] = []
    boxes: dict[str, list[Box]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    of_masks: dict[str, Path] = {}
    unusable: dict[str, str] = {}
    for file in files:
        found, why, size, called = _parsed(file)
        if name := _image(names, file, called, flaws):
            if name in boxes:
                why = f"image of several files in {XML}: {file.name}"
            boxes[name], sizes[name] = found, size
            unusable |= {name: why} if why else {}
    for file in pictures:
        if name := _image(names, file, "", flaws):
            if name in of_masks:
                unusable[name] = f"image of several masks: {file.name}"
            of_masks[name] = file
    things = tuple(sorted({kind for own in boxes.values() for kind, _, _ in own}))
    if masks.classes and boxes:
        for name, own in boxes.items():
            if strange := sorted({kind for kind, _, _ in own} - {*masks.classes}):
                unusable.setdefault(name, f"thing of a class that data.masks.classes doesn't name: {strange[0]}")
        things = tuple(name for name in things if name in masks.classes)
    if not of_masks and not things:
        raise ValueError(f"data.annotations: {root}: there is no thing in any of the {len(files):,} files in {XML}")
    if of_masks and not masks.names and things:
        masks = Masks(_order(things, boxes, of_masks), (), masks.ignore)
    numbers = {name: number for number, name in enumerate(things)}
    annotations = {
        name: Annotation(
            of_masks.get(name),
            None
            if name not in boxes
            else tuple(Thing(numbers[kind], box, None, hard) for kind, box, hard in boxes[name] if kind in numbers),
            size=sizes.get(name),
            unusable=unusable.get(name, ""),
        )
        for name in sorted({*boxes, *of_masks})
    }
    splits, notes = _splits(root, names, annotations)
    if splits is not None:
        annotations = {name: one for name, one in annotations.items() if name in splits}
    told = f"{root}: boxes of {len(boxes):,} images, masks of {len(of_masks):,}"
    return Told(annotations, masks if of_masks else None, things, splits, flaws, [told, *notes])


def _image(names: Names, file: Path, called: str, flaws: list[Flaw]) -> str:
    """The image that a file is about, or `""` with a flaw."""
    try:
        return names.find_stem(file.stem)
    except LookupError as error:
        reason = str(error)
    if called and reason == MISSING:
        try:
            return names.find(called)
        except LookupError as error:
            reason = str(error)
    flaws.append(Flaw(f"{file.parent.name}/{file.name}", reason, LEFT_OUT))
    return ""


def _parsed(file: Path) -> tuple[list[Box], str, tuple[int, int] | None, str]:
    """The things in an XML file, or why they can't be used; the image's size and name as it says."""
    try:
        with regular_file(file) as handle:
            root = ElementTree.parse(handle).getroot()
    except (ElementTree.ParseError, ValueError, OSError) as error:  # `ValueError`: an unknown encoding, or `Refused`
        return [], f"XML file that is damaged: {error}", None, ""
    called = (root.findtext("filename") or "").strip()
    if root.tag != "annotation":
        return [], f"XML file that is no annotation: its root is called {root.tag}", None, called
    sides = [_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    size = (int(sides[0]), int(sides[1])) if all(0 < side < 1e9 for side in sides) else None
    found: list[Box] = []
    for one in root.findall("object"):
        name = class_name((one.findtext("name") or "").strip())
        edges = [_number(one.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")]
        if not name:
            return found, "thing without a name", size, called
        left, top, right, bottom = edges
        hard = (one.findtext("difficult") or "").strip() == "1"
        found.append((name, (left - 1, top - 1, right, bottom), hard))  # the first pixel is 1, the last belongs to it
    return found, "", size, called


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _order(things: Sequence[str], boxes: Mapping[str, Sequence[Box]], of_masks: Mapping[str, Path]) -> tuple[str, ...]:
    """The classes of the numbers in masks: Pascal VOC's twenty, or those of the things by the alphabet, whichever fits
    what is said of the things in the same images."""
    both = [name for name in sorted(boxes) if name in of_masks][:: max(1, len(of_masks) // _LOOKED_AT)]
    seen = []
    for name in both:
        try:
            values = set(np.unique(read_mask(of_masks[name], 2**31)).tolist()) - {0, NO_CLASS}
        except (Refused, OSError, SyntaxError, ValueError):
            continue  # it is put aside when it is read
        seen.append((values, {kind for kind, _, _ in boxes[name]}))
    candidates = [OFFICIAL] * ({*things} <= {*OFFICIAL}) + [tuple(sorted(things))]
    for names in candidates:
        fits = sum({names[value - 1] for value in values if value <= len(names)} == kinds for values, kinds in seen)
        if seen and fits >= _AGREEING * len(seen):
            return (BACKGROUND, *names)
    raise ValueError(
        f"data.masks.classes: which classes the numbers in {MASKS} are can't be told from the boxes in {XML}: name "
        f"them in order, the first is that of 0, such as [{BACKGROUND}, {', '.join(things[:3])}]"
    )


def _splits(root: Path, names: Names, annotated: Mapping[str, Annotation]) -> tuple[dict[str, Split] | None, list[str]]:
    """Which image is in which list of ImageSets, and what is to be said of it; None where there are no lists."""
    listed: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    files: list[str] = []
    unknown = 0
    for kind in ("Main", "Segmentation"):
        known = {one: file for one in listed if (file := root / LISTS / kind / f"{one}.txt").is_file()}
        if "train" not in known or len(known) < 2:
            continue
        for one, file in known.items():
            files.append(f"{kind}/{one}.txt")
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    listed[one] |= {names.find_stem(stem) for stem in line.split()[:1]}
                except LookupError:
                    unknown += 1
    if not files:
        return None, []
    tested = listed["test"] & annotated.keys()
    trained = listed["train"] | (listed["val"] if tested else set())
    tested = tested or listed["val"]
    splits: dict[str, Split] = {
        name: TEST if name in tested else TRAIN for name in annotated if name in tested | trained
    }
    notes = [f"{root / LISTS}: to train and to test on are the images that {', '.join(files)} list"]
    if both := tested & trained:
        notes.append(f"warning: {len(both):,} images are listed both to train and to test on: they are to test on")
    if unknown:
        notes.append(f"warning: {unknown:,} entries in {LISTS} name no image below data.path")
    if rest := len(annotated) - len(splits):
        notes.append(f"warning: {rest:,} annotated images are in none of these lists: they count as not annotated")
    return splits, notes
