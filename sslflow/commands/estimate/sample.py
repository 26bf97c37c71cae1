"""A part of the raw images, prepared in a folder of its own by what prepares all of them, and what that tells."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sslflow.commands.estimate.clock import Taken, cores, taking
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN
from sslflow.ingest.images.decode import decode
from sslflow.ingest.images.encoded import kept_side
from sslflow.ingest.images.examine import Examined, Work, examine
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.records import Item, Record, Source
from sslflow.settings.params import schema

SECONDS = 1.5
"""Of decoding, about, on all processors together."""
LOOKED_AT = 24
"""Images that are decoded first, to know how many a second has room for."""
FEWEST, A_CLASS = 128, 8
"""Images that are prepared at least, in all and for each class."""
COUNTED_S = 20.0
"""Seconds of going through a source after which a line says that it goes on."""


@dataclass
class Counts:
    """Images of all the data, not of the sample alone."""

    images: int
    pretraining: int
    train: int
    """To train on, with a label."""
    test: int
    """To test on, with a label."""
    classes: int

    @property
    def labelled(self) -> bool:
        """Whether probes have something to do."""
        return self.train > 0 and self.test > 0


@dataclass
class Sample:
    """Prepared images: all of them, or a part."""

    dataset: Dataset[ImageFormat]
    counts: Counts
    whole: bool
    """Whether these are all images."""
    decoding: float = 0.0
    """Seconds that an image takes of one processor, read from the disk, decoded and resized."""
    main: float = 0.0
    """Seconds of the one process that gathers what the others decode, an image."""
    listing: float = 0.0
    """Seconds of going through the source."""
    starting: float = 0.0
    """Processor seconds of starting one worker."""
    workers: int = 0
    widths: list[int] = field(default_factory=list)
    """The smaller side of raw images, some of them."""


def of_prepared(folder: Path) -> Sample:
    """What has been prepared already."""
    dataset = Dataset[ImageFormat](folder)
    train, test = (len(dataset.labelled_rows(split)) for split in (TRAIN, TEST))
    found = Counts(len(dataset), len(dataset.pretraining_rows), train, test, len(dataset.classes))
    sides = np.minimum(dataset.column("width"), dataset.column("height"))
    return Sample(dataset, found, whole=True, widths=sides[:: max(1, len(sides) // 1000)].tolist())


def sampled(
    folder: Path,
    settings: Mapping[str, Any],
    tell: Callable[[str], None],
    domain: Literal["", "source", "target"] = "",
) -> Sample:
    """Prepare a part of what the settings of `prepare` name into `folder`. Raises `ValueError` as `prepare` does."""
    seen = _Seen(settings, tell)
    with taking() as taken:
        counts = prepare(folder, lambda line: None, domain, seen.part, **settings)
    taken.wall -= seen.listing.wall
    own = taken.own - seen.listing.own
    dataset = Dataset[ImageFormat](folder)
    kept = counts["images"] / max(1, seen.taken)
    splits = {name: round(count * kept) for name, count in seen.splits.items()}
    whole = seen.taken == seen.records
    labelled = {TRAIN: round(seen.labelled[TRAIN] * kept), TEST: round(seen.labelled[TEST] * kept)}
    found = Counts(
        sum(splits.values()),
        splits.get(POOL) or splits.get(TRAIN, 0),
        labelled[TRAIN],
        labelled[TEST],
        len(dataset.classes),
    )
    workers = settings.get("workers") or cores()
    starting = max(0.0, taken.children - seen.taken * seen.decoding) / workers
    return Sample(
        of_prepared(folder).dataset,
        of_prepared(folder).counts if whole else found,
        whole,
        seen.decoding,
        own / max(1, seen.taken),
        seen.listing.seconds,
        starting,
        workers,
        seen.widths,
    )


class _Seen:
    """Goes through a source, counts, and takes every so-manieth image of it."""

    def __init__(self, settings: Mapping[str, Any], tell: Callable[[str], None]) -> None:
        known = schema(prepare)
        own = {name: settings.get(name, known[name].default) for name in (*DECODING, *KEEPING)}
        store, side, quality = (own.pop(name) for name in KEEPING)
        size = kept_side(store, side, settings["image_size"])
        decoder = partial(decode, size=size, channels=settings["channels"], **own)
        self.work = Work(decoder, quality=quality if store == "jpeg" else 0)
        self.workers = settings.get("workers") or cores()
        self.tell = tell
        self.records = self.taken = 0
        self.splits: Counter[str] = Counter()
        self.labelled: Counter[str] = Counter()
        self.decoding = 0.0
        self.listing = Taken()
        self.widths: list[int] = []

    def part(self, source: Source) -> Source:
        """The source, thinned out evenly."""
        began, told = time.monotonic(), False
        with taking() as self.listing:
            for item in source.records():
                if isinstance(item, Record):
                    self.records += 1
                    self.splits[item.split] += 1
                    self.labelled[item.split] += item.label != NO_LABEL
                if not told and time.monotonic() - began > COUNTED_S:
                    self.tell(f"{self.records:,} images listed so far; the disk is slow, or they are very many")
                    told = True
            some = list(_every(source.records(), max(1, self.records // LOOKED_AT)))[:LOOKED_AT]
        if not self.records:
            return source  # of which `prepare` will say what is wrong
        examine(some[:2], self.work)  # the first time, Pillow loads its readers
        with taking() as taken:
            decoded = [one for one in examine(some, self.work) if isinstance(one, Examined)]
        self.widths = [min(one.decoded.width, one.decoded.height) for one in decoded]
        self.decoding = taken.seconds / max(1, len(some))
        fits = round(SECONDS * min(self.workers, cores()) / max(self.decoding, 1e-6))
        wanted = max(FEWEST, A_CLASS * len(source.classes), fits)
        step = max(1, self.records // wanted)
        self.taken = -(-self.records // step)
        return replace(source, records=lambda: _thinned(source, step))


DECODING = ("fit", "background", "sixteen_bit", "max_pixels")
KEEPING = ("store", "stored_side", "quality")


def _every(items: Iterator[Item], step: int) -> Iterator[Record]:
    number = 0
    for item in items:
        if isinstance(item, Record):
            if number % step == 0:
                yield item
            number += 1


def _thinned(source: Source, step: int) -> Iterator[Item]:
    yield from _every(source.records(), step)
