"""Masks and boxes as they come with prepared images: collected, written, and judged. In memory are masks as PNG
files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from sslflow.data.classes import lacking, shown, summary
from sslflow.data.splits import TEST, TRAIN, Split
from sslflow.ingest.images.examine import Examined
from sslflow.ingest.images.known import Known
from sslflow.ingest.images.masks import renumbered
from sslflow.ingest.records import LEFT_OUT, MENDED, NO_CLASS, UNANNOTATED, Flaw, Source, escape
from sslflow.runtime.files import write_csv

FILE = "annotations.csv"
_EXAMPLES = 5
_BECOMES = {
    LEFT_OUT: "left out",
    UNANNOTATED: "their images count as not annotated",
    MENDED: "used all the same",
}


class Truths:
    """What is known of the images that are kept."""

    def __init__(self, source: Source) -> None:
        self._masks, self._things = source.masks, source.thing_classes
        self._known: dict[int, tuple[Split, Known]] = {}
        self._flaws = list(source.flaws)
        self._conflicts: list[str] = []

    def checked(self, item: Examined) -> Examined:
        """The image; where what is said of it can't be used, as one to train on that nobody has annotated."""
        if item.known is None:
            return item
        self._flaws += [Flaw(item.name, reason, fate) for reason, fate in item.known.flaws]
        return item if item.known.usable else replace(item, split=TRAIN, known=None)

    def add(self, item: Examined, first: int | None, row: int | None) -> None:
        """What is known of an image: in `row`, unless it was dropped; in `first` is one that equals it, if any does."""
        if item.known is None:
            return
        split, other = self._known.get(first, (None, None)) if first is not None else (None, None)
        if other is not None and not other.same(item.known):
            self._conflicts.append(escape(item.name))
        if row is not None:
            self._known[row] = item.split, item.known
        elif first is not None and other is None and item.split == split:
            self._known[first] = item.split, item.known

    def write(self, folder: Path, max_bad: float, say: Callable[[str], None]) -> tuple[dict, dict[str, int]]:
        """Write them into the folder of a prepared data set; what `dataset.json` says of them, and counts; neither
        where the source has none. `say` gets a line for each thing that is to be known.

        Raises `ValueError` where none can be used, more than the share `max_bad` can't, or masks are of one class.
        """
        if self._masks is None and not self._things:
            return {}, {}
        rows = [(escape(flaw.name), flaw.fate, escape(flaw.reason)) for flaw in self._flaws]
        write_csv(folder / FILE, ("path", "fate", "reason"), rows)
        self._check(max_bad)
        if not any(one.mask or len(one.labels) for _, one in self._known.values()):
            raise ValueError(
                f"data.annotations: {len(self._known)} images are annotated, and none with a thing or a mask"
            )
        pixel_classes = self._numbered()
        from sslflow.data.truth import Annotated, Things, truth_facts, write_truth  # brings torch

        write_truth(
            folder,
            {
                row: Annotated(one.mask, None if one.boxes is None else Things(one.boxes, one.labels, one.ignored))
                for row, (_, one) in self._known.items()
            },
        )
        self._tell(pixel_classes, say)
        facts = {"truth": truth_facts(pixel_classes, self._things)}
        return facts, self._counts()

    def _check(self, max_bad: float) -> None:
        bad = [flaw for flaw in self._flaws if flaw.fate == UNANNOTATED]
        good = len(self._known)
        if good and len(bad) <= max_bad * (good + len(bad)):
            return
        examples = "".join(f"\n  {escape(flaw.name)}: {escape(flaw.reason)}" for flaw in bad[:_EXAMPLES])
        limit = f"more than data.max_bad = {max_bad:g} allows" if good else "there is nothing to learn from"
        raise ValueError(
            f"data.annotations: masks and boxes of {len(bad)} of {good + len(bad)} annotated images can't be used, "
            f"{limit}{':' if bad else ''}{examples}"
        )

    def _numbered(self) -> tuple[str, ...]:
        """The classes of pixels. Where they are the numbers in the masks, these become 0, 1, 2, …"""
        masks = self._masks
        if masks is None or not any(one.mask for _, one in self._known.values()):
            return ()
        names = masks.names
        if not names:
            found = sorted({number for _, one in self._known.values() for number in one.classes})
            names = tuple(map(str, found))
            if found != list(range(len(found))):
                for row, (split, one) in self._known.items():
                    if one.mask is not None:
                        classes = tuple(found.index(number) for number in one.classes)
                        self._known[row] = split, replace(one, mask=renumbered(one.mask, found), classes=classes)
        if len(names) < 2:
            also = f", and {masks.ignore}, which data.masks.ignore leaves out" if masks.ignore == NO_CLASS else ""
            raise ValueError(
                f"data.masks: expected masks of two classes or more, found {shown(names) or 'none'}{also}; for "
                "black and white masks set data.masks to classes: [background, thing], values: [0, 255], ignore: -1"
            )
        return names

    def _tell(self, pixel_classes: tuple[str, ...], say: Callable[[str], None]) -> None:
        counts = self._counts()
        if pixel_classes:
            say(
                f"masks of {counts['with_mask']:,} images, {len(pixel_classes):,} classes of pixels: "
                f"{shown(pixel_classes)}"
            )
            of_pixels = _by_class(
                pixel_classes, ((one.classes, split) for split, one in self._known.values() if one.mask is not None)
            )
            for line in lacking(of_pixels, tested=True):
                say(f"warning: masks: {line}")
        if self._things:
            of_things = _by_class(
                self._things,
                ((one.labels[~one.ignored], split) for split, one in self._known.values() if one.boxes is not None),
            )
            told = summary({name: sum(own.values()) for name, own in of_things.items()})
            say(
                f"{counts['things']:,} boxes in {counts['with_boxes']:,} images ({counts['without_things']:,} of them "
                f"without any), {told}"
            )
            if counts["things_ignored"] or counts["cut_away"]:
                say(
                    f"{counts['things_ignored']:,} boxes are ignored, neither found nor missed: crowds, difficult "
                    "ones, and those of which data.fit leaves less than a quarter or a pixel; of "
                    f"{counts['cut_away']:,} more it leaves nothing"
                )
            for line in lacking(of_things, tested=True):
                say(f"warning: boxes: {line}")
        for line in _told(self._flaws):
            say(f"warning: annotations: {line}")
        if self._flaws:
            say(f"warning: annotations: all {len(self._flaws):,} of these stand in {FILE}, beside dataset.json")
        if self._conflicts:
            say(
                f"warning: annotations: {len(self._conflicts)} images equal another one that is annotated otherwise: "
                f"{shown(self._conflicts, _EXAMPLES)}; of equal images that are dropped the first one's is kept"
            )

    def _counts(self) -> dict[str, int]:
        known = [one for _, one in self._known.values()]
        boxes = [one for one in known if one.boxes is not None]
        fates = Counter(flaw.fate for flaw in self._flaws)
        return {
            "with_mask": sum(one.mask is not None for one in known),
            "with_boxes": len(boxes),
            "things": sum(len(one.labels) for one in boxes),
            "things_ignored": sum(int(one.ignored.sum()) for one in boxes),
            "without_things": sum(not len(one.labels) for one in boxes),
            "cut_away": sum(one.cut_away for one in boxes),
            "annotations_left_out": fates[LEFT_OUT],
            "annotations_mended": fates[MENDED],
            "annotations_unusable": fates[UNANNOTATED],
            "annotation_conflicts": len(self._conflicts),
            **{f"annotated_{name}": sum(split == name for split, _ in self._known.values()) for name in (TRAIN, TEST)},
        }


def _by_class(names: tuple[str, ...], found: Iterable[tuple[Iterable[int], Split]]) -> dict[str, Counter[str]]:
    """Class → split → how often it is there."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    for numbers, split in found:
        for number in numbers:
            counts[names[number]][split] += 1
    return counts


def _told(flaws: list[Flaw]) -> Iterable[str]:
    """A line for each kind of flaw."""
    kinds: defaultdict[tuple[str, str], list[Flaw]] = defaultdict(list)
    for flaw in flaws:
        kinds[flaw.reason.partition(":")[0], flaw.fate].append(flaw)
    for (kind, fate), own in sorted(kinds.items()):
        detail = own[0].reason.partition(":")[2].strip()
        example = f"{escape(own[0].name)}{f' ({escape(detail)})' if detail else ''}"
        yield f"{len(own):,} x {escape(kind)}, such as {example}: {_BECOMES[fate]}"
