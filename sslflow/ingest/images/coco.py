"""Annotations in COCO's JSON: boxes, polygons, run lengths. Imports no torch."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sslflow.data.classes import class_name, shown
from sslflow.data.splits import TEST, TRAIN, Split
from sslflow.ingest.images.matching import Names, Told
from sslflow.ingest.records import LEFT_OUT, MENDED, NO_CLASS, Annotation, Flaw, Masks, Shape, Thing

BACKGROUND = "background"
_NO_BOX = "box that is not four numbers"
_NO_SHAPE = "shape that is neither polygons nor run lengths; its box is used"


@dataclass(slots=True)
class _Entry:
    """One annotation, in little memory."""

    image: Any
    category: Any
    number: Any
    box: tuple[float, float, float, float] | None
    shape: Shape | None
    crowd: bool
    problems: tuple[str, ...]

    def same(self, other: _Entry) -> bool:
        """Whether the other says the same, as far as can be told by its box."""
        return (self.image, self.category, self.box) == (other.image, other.category, other.box)


@dataclass(frozen=True)
class _File:
    """What one file says, by the names of images and classes."""

    classes: tuple[str, ...]
    things: Mapping[str, list[tuple[str, _Entry]]]
    """Image → class and annotation of each thing in it."""
    sizes: Mapping[str, tuple[int, int] | None]
    unusable: Mapping[str, str]
    """Image → why its annotations can't be used."""
    flaws: list[Flaw] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_coco(file: Path, tested: Path | None, names: Names) -> Told:
    """What `file` says of images, and of those to test on `tested`, where it is given. Raises `ValueError` for a file
    that is none of COCO's."""
    first = _read(file, "data.annotations", names)
    second = _read(tested, "data.annotations_test", names) if tested else None
    files = [first, second] if second else [first]
    classes = tuple(sorted({name for one in files for name in one.classes}))
    if BACKGROUND in classes and any(
        kind == BACKGROUND for one in files for things in one.things.values() for kind, _ in things
    ):
        raise ValueError(f"{file}: a category is called {BACKGROUND}, as what is no thing is; rename it")
    classes = tuple(name for name in classes if name != BACKGROUND)
    flaws, notes = [flaw for one in files for flaw in one.flaws], [note for one in files for note in one.notes]
    for one, other, place in ((first, second, tested), (second, first, file)):
        alone = sorted({*one.classes} - {*other.classes}) if one and other else []
        if alone:
            notes.append(f"warning: {place} has no category {shown(alone)}, which the other file has")
    shapes = [entry.shape is not None for one in files for things in one.things.values() for _, entry in things]
    shaped = any(shapes)
    if shaped and not all(shapes):
        lacking = f"{len(shapes) - sum(shapes):,} of {len(shapes):,} annotations"
        notes.append(f"warning: {file}: {lacking} have a box and no shape: in masks, their boxes are ignored")
    if shaped and len(classes) >= NO_CLASS:
        notes.append(f"warning: {file}: {len(classes)} categories are too many for masks, of which none are made")
        shaped = False
    numbers = {name: number for number, name in enumerate(classes)}
    annotations: dict[str, Annotation] = {}
    for one in files:
        for name, size in one.sizes.items():
            things = tuple(
                Thing(numbers[kind], entry.box, entry.shape, entry.crowd) for kind, entry in one.things.get(name, ())
            )
            annotations[name] = Annotation(None, things, shaped, size, one.unusable.get(name, ""))
    both = first.sizes.keys() & second.sizes.keys() if second else set()
    if both:
        notes.append(
            f"warning: {len(both):,} images stand in {file} and in {tested}, such as {min(both)}: they are to test on"
        )
    splits: dict[str, Split] | None = None
    if second:
        splits = {name: TEST if name in second.sizes else TRAIN for name in annotations}
    masks = Masks((BACKGROUND, *classes)) if shaped else None
    return Told(annotations, masks, classes, splits, flaws, notes)


def _read(file: Path, setting: str, names: Names) -> _File:
    content = _content(file, setting)
    notes: list[str] = []
    categories = _categories(content, file, notes)
    entries, flaws = _entries(content, file)
    if any(isinstance(one, dict) and one.get("keypoints") for one in content["categories"]):
        notes.append(f"warning: {file}: only boxes and shapes are read, not its key points")
    images, sizes, unusable, missing = _images(content, file, names, flaws)
    things: defaultdict[str, list[tuple[str, _Entry]]] = defaultdict(list)
    lost: Counter[Any] = Counter()
    strayed = 0
    seen: dict[Any, _Entry] = {}
    for entry in entries:
        if entry.image in missing and entry.image not in images:
            lost[entry.image] += 1
            continue
        if entry.image not in images:
            strayed += 1
            flaws.append(Flaw(f"annotation {entry.number}", f"image id that isn't there: {entry.image}", LEFT_OUT))
            continue
        name = images[entry.image]
        if entry.number is not None and (other := seen.setdefault(entry.number, entry)) is not entry:
            twice = other.same(entry)
            reason = f"annotation {'that stands there twice' if twice else 'id of two annotations'}: {entry.number}"
            flaws.append(Flaw(name, reason, LEFT_OUT if twice else MENDED))
            if twice:
                continue
        if entry.category not in categories:
            unusable.setdefault(name, f"category id that isn't there: {entry.category}")
            continue
        if entry.problems and entry.box is None and entry.shape is None:
            unusable.setdefault(name, entry.problems[0])
            continue
        flaws += [Flaw(name, reason, LEFT_OUT) for reason in entry.problems]
        things[name].append((categories[entry.category], entry))
    flaws += [
        Flaw(flaw.name, f"{flaw.reason}{f', with {lost[number]} annotations' if lost[number] else ''}", flaw.fate)
        for number, flaw in missing.items()
    ]
    if strayed and strayed == len(entries):
        raise ValueError(f"{file}: none of the {strayed:,} annotations is of an image in it; look at image_id")
    classes = tuple(sorted(set(categories.values())))
    notes.insert(
        0,
        f"{file}: {sum(map(len, things.values())):,} annotations of {len(sizes):,} images, {len(classes):,} categories",
    )
    return _File(classes, things, sizes, unusable, flaws, notes)


def _images(
    content: Mapping[str, list], file: Path, names: Names, flaws: list[Flaw]
) -> tuple[dict[Any, str], dict[str, tuple[int, int] | None], dict[str, str], dict[Any, Flaw]]:
    """Of the images: name by id, size by name, by name why nothing of it can be used, and by id what is missing. Raises
    `ValueError` where all are."""
    images: dict[Any, str] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    unusable: dict[str, str] = {}
    missing: dict[Any, Flaw] = {}
    for image in content["images"]:
        number, called = (_key(image.get("id")), image.get("file_name")) if isinstance(image, dict) else (None, None)
        if number is None or not isinstance(called, str) or not called:
            flaws.append(Flaw(f"image {number}", f"image without an id or a file_name: {str(image)[:80]}", LEFT_OUT))
            continue
        try:
            name = names.find(called)
        except LookupError as reason:
            missing[number] = Flaw(called, str(reason), LEFT_OUT)
            continue
        if images.get(number, name) != name:
            unusable |= dict.fromkeys((name, images[number]), f"image id of two images: {number}")
        elif number in images:
            flaws.append(Flaw(name, f"image that is listed twice: id {number}", MENDED))
        elif name in sizes:
            unusable[name] = "image that is listed under two ids"
        images[number] = name
        sizes[name] = _size(image)
    if not images:
        example = next(iter(missing.values()), None)
        raise ValueError(
            f"{file}: none of its {len(content['images']):,} images can be found below data.path by its file_name"
            + (f", such as {example.name}: {example.reason}" if example else "")
        )
    return images, sizes, unusable, missing


def _content(file: Path, setting: str) -> dict[str, list]:
    """The file, its annotations as `_Entry`. Raises `ValueError` where it is none of COCO's."""
    if not file.is_file():
        raise ValueError(f"{setting}: there is no file {file}; name a JSON file as COCO has them, or ''")
    try:
        with file.open("rb") as handle:
            content = json.load(handle, object_hook=_compact)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{setting}: {file} is no JSON ({error})") from None
    expected = "expected COCO's instances, an object with the lists images, annotations and categories"
    if isinstance(content, list):
        what = "a list, as of a model's results" if content and isinstance(content[0], _Entry) else "a list"
        raise ValueError(f"{setting}: {file}: {expected}, found {what}")
    if not isinstance(content, dict):
        raise ValueError(f"{setting}: {file}: {expected}, found something else")
    lists = ("images", "annotations", "categories")
    if any(isinstance(one, dict) and "caption" in one for one in content.get("annotations") or ()):
        raise ValueError(f"{setting}: {file}: {expected} with boxes or shapes, found captions")
    if missing := [name for name in lists if not isinstance(content.get(name), list)]:
        raise ValueError(f"{setting}: {file}: {expected}; there is no list {' and no list '.join(missing)}")
    for name in ("images", "categories"):
        if not content[name]:
            raise ValueError(f"{setting}: {file}: {expected}; the list {name} is empty")
    return content


def _compact(found: dict[str, Any]) -> Any:
    """What is put in the place of an object of the JSON, at once, so that not all of it is in memory as lists."""
    if "counts" in found and "size" in found:
        return {name: _numbers(found[name]) if name == "counts" else found[name] for name in ("counts", "size")}
    if "image_id" not in found or not found.keys() & {"bbox", "segmentation", "category_id"}:
        return found
    problems = []
    box, values = None, found.get("bbox")
    if values:
        edges = _numbers(values)
        if isinstance(edges, np.ndarray) and edges.shape == (4,):
            left, top, width, height = edges.tolist()
            box = (left, top, left + width, top + height)
        else:
            problems.append(_NO_BOX)
    shape, values = None, found.get("segmentation")
    if values:
        shape = _shape(values)
        problems += [_NO_SHAPE] * (shape is None)
    image, category, number = (_key(found.get(name)) for name in ("image_id", "category_id", "id"))
    return _Entry(image, category, number, box, shape, bool(found.get("iscrowd")), tuple(problems))


def _key(value: Any) -> Any:
    """An id, or None for what can be none."""
    return value if isinstance(value, (int, float, str)) else None


def _shape(values: Any) -> Shape | None:
    if isinstance(values, dict):
        size = values.get("size")
        whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        return values if whole and isinstance(values.get("counts"), (str, np.ndarray)) else None
    if not isinstance(values, list):
        return None
    polygons = [_numbers(one) for one in (values if isinstance(values[0], list) else [values])]
    good = [one for one in polygons if isinstance(one, np.ndarray) and not len(one) % 2]
    return tuple(good) if len(good) == len(polygons) else None


def _numbers(values: Any) -> Any:
    """A list of numbers as float64 `(n,)`; what is none stays as it is."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        return values
    try:
        return np.asarray(values, np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return values


def _categories(content: Mapping[str, list], file: Path, notes: list[str]) -> dict[Any, str]:
    """Name by id. Raises `ValueError` where an id has two names."""
    found: dict[Any, str] = {}
    for one in content["categories"]:
        number, name = (_key(one.get("id")), one.get("name")) if isinstance(one, dict) else (None, None)
        if number is None or not isinstance(name, str) or not name.strip():
            raise ValueError(f"{file}: a category needs an id and a name, found {one}")
        name = class_name(name.strip())
        if found.setdefault(number, name) != name:
            raise ValueError(f"{file}: category {number} is called both {found[number]} and {name}; keep one of them")
    twice = [name for name, count in Counter(found.values()).items() if count > 1]
    if twice:
        notes.append(f"warning: {file}: several categories are called {shown(twice)}: taken as one")
    if len(found) < len(content["categories"]):
        notes.append(f"warning: {file}: {len(content['categories']) - len(found)} categories are listed twice")
    return found


def _entries(content: Mapping[str, list], file: Path) -> tuple[list[_Entry], list[Flaw]]:
    entries = [one for one in content["annotations"] if isinstance(one, _Entry)]
    flaws = [
        Flaw(file.name, f"annotation without an image, a box or a shape: {str(one)[:80]}", LEFT_OUT)
        for one in content["annotations"]
        if not isinstance(one, _Entry)
    ]
    return entries, flaws


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """What is said of it, if anything is."""
    width, height = image.get("width"), image.get("height")
    if isinstance(width, (int, float)) and isinstance(height, (int, float)) and min(width, height) > 0:
        return (int(width), int(height)) if max(width, height) < 1e9 else None
    return None
