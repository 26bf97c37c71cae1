"""Whether a folder of class folders is one: what looks like another layout, and which setting to use then."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sslflow.data.classes import shown, summary
from sslflow.ingest.records import escape

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation", "dev")
_SPLITS = frozenset(
    (
        *(*TRAIN_NAMES, *TEST_NAMES, *VALIDATION_NAMES, "trainval", "eval", "evaluation", "holdout", "heldout"),
        *("fold", "split", "unlabeled", "unlabelled", "unsup", "unsupervised", "labeled", "labelled"),
        *("pred", "prediction"),
    )
)
_PICTURES = frozenset(("images", "image", "imgs", "img", "jpegimages", "leftimgbit"))
_ASIDE = frozenset(
    (
        *(
            "labels",
            "label",
            "annotations",
            "annotation",
            "masks",
            "gt",
            "groundtruth",
            "gtfine",
            "gtcoarse",
            "trimaps",
        ),
        *("segmentations", "segmentationclass", "segmentationobject", "bboxes", "depth", "thumbnails", "thumbs"),
        *("meta", "metadata"),
    )
)
_WORDS_BESIDE = frozenset(("set", "data", "dataset", "images", "image", "img", "samples", "simple", "seg", "all"))
"""Words that leave the name of a split one, as single letters do: `test set`, `seg_train`, `x_train`."""


@dataclass(frozen=True)
class Words:
    """How messages call what lies in the folders, the setting that names their place, and what to set where there are
    no labels (empty where labels are needed)."""

    what: str = "images"
    place: str = "data.path"
    unlabelled: str = "set data.source to folder"
    splits: bool = True
    """Whether folders `train` and `test` may hold the class folders."""


@dataclass(frozen=True)
class ClassFolder:
    """What lies in one folder of a class."""

    name: str
    """The class."""
    place: str
    """The folder, below the root, with a slash at its end."""
    inside: Mapping[str, int]
    """Folder below it (`""`, `old/`, `old/2019/`) → number of images directly in it, where there are any."""

    @property
    def count(self) -> int:
        """All images in it."""
        return sum(self.inside.values())

    @property
    def below(self) -> Counter[str]:
        """Images in each of its sub-folders, at any depth in it."""
        found: Counter[str] = Counter()
        for folder, count in self.inside.items():
            if folder:
                found[folder.partition("/")[0]] += count
        return found


def like_a_split(name: str) -> bool:
    """Whether a folder of this name is probably a part of a set: `train`, `Test_Set`, `val2017`, `trainA`."""
    words = _words(name)
    beside = (word in _SPLITS | _WORDS_BESIDE or len(word) == 1 for word in words)
    return any(word in _SPLITS for word in words) and all(beside)


def like_a_part(name: str) -> bool:
    """Whether it is probably one of several files for each example: `images`, `masks`."""
    return "".join(_words(name)) in _PICTURES or beside_images(name)


def beside_images(name: str) -> bool:
    """Whether it probably holds what goes with images, and is none to learn from: `masks`, `thumbs`."""
    return "".join(_words(name)) in _ASIDE


def _parts(names: Collection[str]) -> set[str]:
    """Those names that are probably parts of a set and no classes: also `dogs_train` beside `dogs_test`."""
    groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        words = _words(name)
        rest = tuple(word for word in words if word not in _SPLITS)
        if len(rest) < len(words):
            groups[rest].append(name)
    twins = {name for group in groups.values() if len(group) > 1 for name in group}
    return twins | {name for name in names if like_a_split(name) or like_a_part(name)}


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|[^a-zA-Z]+|(?<=[a-z])(?=(set|data)$)", " ", name)
    return apart.casefold().split()


def notes(root: Path, folders: Sequence[ClassFolder], words: Words) -> list[str]:
    """Lines for the log: the classes with their counts, and a warning for all that may be another layout."""
    counts: Counter[str] = Counter()
    for folder in folders:
        counts[folder.name] += folder.count
    held = {name: count for name, count in counts.items() if count}
    lines = [f"{root}: {words.what} in {summary(held)}"]
    empty = [name for name, count in counts.items() if not count]
    if empty:
        lines.append(f"warning: {root}: there are no {words.what} in the class folders {shown(empty)}")
    odd = sorted(_parts(held))
    if odd and len(odd) < len(held):
        lines.append(
            f"warning: {root}: {shown(odd)} {'is' if len(odd) == 1 else 'are'} taken as "
            f"{'a class' if len(odd) == 1 else 'classes'}, like {shown(name for name in held if name not in odd)}; "
            f"if that is wrong, set {words.place} to a folder that holds nothing but class folders"
        )
    lines += [f"warning: {root}: {line}" for line in (_nested(folders, words), _alone(held, words)) if line]
    return lines


def doubt(root: Path, places: Mapping[str, Sequence[ClassFolder]], words: Words, tested: Collection[str] = ()) -> str:
    """Why the classes can hardly be meant, and what to set; `""` where they can. `places` are the folders that hold
    class folders, by their names below the root, with a slash at the end; `tested` those to test on."""
    folders = [folder for own in places.values() for folder in own if folder.count]
    names = list(dict.fromkeys(folder.name for folder in folders))
    otherwise = f"; for {words.what} without labels {words.unlabelled}" if words.unlabelled else ""
    if len(names) == 1:
        return f"{root}: one class only, '{names[0]}'{_deeper(root, folders, words)}{otherwise}"
    for place, own in places.items():
        here = [folder for folder in own if folder.count]
        parts = _parts({folder.name for folder in here})
        odd = [folder for folder in here if folder.name in parts]
        holding = [folder for folder in odd if "" not in folder.inside and len(folder.below) > 1]
        if not holding and len(odd) < max(1, len(here)):
            continue
        found = holding or odd
        names = shown(dict.fromkeys(folder.name for folder in found))
        such_as = f", such as {root / escape(holding[0].place)}" if holding else ""
        splits = words.splits and not all(like_a_part(folder.name) for folder in found)
        return (
            f"{root / escape(place)}: expected class folders, found {names}, "
            f"like the parts of a set; set {words.place} to a folder of class folders{such_as}"
            f"{', or name the parts train and test' if splits else ''}{otherwise}; if they are classes, give them "
            "other names (links to them will do)"
        )
    here = [(place in tested, folder.name) for place, own in places.items() for folder in own if folder.count]
    to_test, to_train = (sorted({name for of_test, name in here if of_test == asked}) for asked in (True, False))
    if tested and not to_test:
        return (
            f"{root}: expected class folders in {shown(tested)}, found none; move it away, to test on what else has "
            f"labels, which pretraining then doesn't see{otherwise}"
        )
    if to_test and not set(to_test) & set(to_train):
        others = [place for place in places if place not in tested]
        return (
            f"{root}: expected the same classes to train on and to test on, found {shown(to_train) or 'none'} in "
            f"{shown(others)} and {shown(to_test)} in {shown(tested)}{otherwise}"
        )
    return ""


def _deeper(root: Path, folders: Iterable[ClassFolder], words: Words) -> str:
    """Where class folders may lie, if all images of the only one lie deeper."""
    for folder in folders:
        if "" in folder.inside:
            return f", in {root / escape(folder.place)}; without a second one no accuracy says anything"
        place, inside = folder.place, dict(folder.inside)
        while "" not in inside and len(names := {path.partition("/")[0] for path in inside}) == 1:
            (name,) = names
            place += f"{name}/"
            inside = {path.removeprefix(f"{name}/"): count for path, count in inside.items()}
        if "" not in inside:
            found = shown(dict.fromkeys(escape(path.partition("/")[0]) for path in inside))
            where = root / escape(place)
            return f", whose {words.what} lie in {found}; if {where} holds the class folders, set {words.place} to it"
    return "; without a second one no accuracy says anything"


def _nested(folders: Sequence[ClassFolder], words: Words) -> str:
    """Class folders with the same folders in them, or with nothing but folders."""
    held = [folder for folder in folders if folder.count]
    if len({folder.name for folder in held}) < 2:
        return ""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for folder in held:
        for name in folder.below:
            owners[escape(name)].add(folder.name)
    common = [name for name, own in owners.items() if len(own) > 1 and 2 * len(own) > len(held)]
    use = f"their names are not used. If they are the classes, set {words.place} to a folder that holds them alone"
    if any(map(like_a_split, common)) and words.splits:
        return (
            f"{shown(common)} in the class folders are not taken as a split; for that, let them hold the class "
            f"folders: train/{held[0].name}, test/{held[0].name}, …"
        )
    if len(common) > 1 or any(map(beside_images, common)):
        return f"most class folders have the same folders in them ({shown(common)}); {use}"
    deep = [folder for folder in held if "" not in folder.inside]
    if (2 * len(deep) >= len(held) and len(owners) > 1) or any(len(folder.below) > 1 for folder in deep):
        which = f"{len(deep)} of {len(held)} class folders"
        return f"in {which} {words.what} lie only in further folders ({shown(owners)}); {use}"
    return ""


def _alone(counts: Mapping[str, int], words: Words) -> str:
    """Classes of a single image."""
    single = [name for name, count in counts.items() if count == 1]
    if len(counts) < 2 or 2 * len(single) <= len(counts):
        return ""
    otherwise = (
        f"; if each has a folder of its own, without being a class, {words.unlabelled}" if words.unlabelled else ""
    )
    return f"{len(single):,} of {len(counts):,} classes have one of the {words.what} only{otherwise}"
