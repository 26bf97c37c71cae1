"""Classes of different sizes, made from labelled images on purpose: what of them is kept to train on. Imports no
torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeGuard

from sslflow.data.splits import NO_LABEL, TRAIN, placed
from sslflow.ingest.records import Item, Record, Source, escape

USE = "imbalance"
"""What the order of images and classes is drawn for."""


def long_tailed(source: Source, factor: float, seed: int) -> tuple[Source, int]:
    """The source with classes to train on whose sizes fall exponentially, the largest `factor` times the smallest; how
    many images that leaves out.

    Images to test on and those without a label stay as they are. Raises `ValueError` where there are no two classes to
    train on, or too few images for the factor.
    """
    sizes = train_sizes(source)
    named = {source.classes[label]: size for label, size in sizes.items()}
    if len(named) < 2:
        found = f"one class, {next(iter(named))}" if named else "no labels"
        raise ValueError(
            f"data.imbalance = {factor:g}: expected labelled images of two classes or more to train on, found {found}; "
            "set it to 1, or name a source with labels"
        )
    targets = profile(named, factor, seed)
    largest, smallest = max(targets, key=targets.__getitem__), min(targets, key=targets.__getitem__)
    kept, total = sum(targets.values()), sum(named.values())
    note = (
        f"imbalance {factor:g}: {kept:,} of {total:,} labelled images to train on are kept, from "
        f"{targets[largest]:,} of {escape(largest)} down to {targets[smallest]:,} of {escape(smallest)}; "
        "test images are as they were"
    )
    thinned = subset(source, {label: targets[source.classes[label]] for label in sizes}, seed)
    return replace(thinned, notes=(*thinned.notes, note)), total - kept


def profile(sizes: Mapping[str, int], factor: float, seed: int) -> dict[str, int]:
    """How many images of each of two classes or more are kept: n · factor^(−r / (classes − 1)) of the class of rank r,
    rounded (Cao and others, arXiv:1906.07413), with the largest n for which the `sizes` suffice.

    Which class has which rank is drawn by `seed`, among those that are large enough for it. Raises `ValueError` where
    the smallest would have no image.
    """
    steps = [factor ** (rank / (len(sizes) - 1)) for rank in range(len(sizes))]
    ordered = sorted(sizes.values(), reverse=True)
    largest = int(min(size * step for size, step in zip(ordered, steps, strict=True)))
    if largest < factor:
        # That of rank r has an image as long as the factor is no larger than this.
        powers = [(len(sizes) - 1) / (len(sizes) - 1 - rank) for rank in range(len(sizes) - 1)]
        most = int(min(size**power for size, power in zip(ordered, powers, strict=False)))
        raise ValueError(
            f"data.imbalance = {factor:g}: the smallest class would be left without an image; with these "
            f"{len(sizes)} classes, the largest of {ordered[0]:,} images to train on, it can be {most:,} at most"
        )
    targets: dict[str, int] = {}
    for rank, step in enumerate(steps):
        target = max(1, round(largest / step))
        left = [name for name, size in sizes.items() if name not in targets and size >= target]
        targets[min(left, key=lambda name: placed(seed, f"{USE} {rank}", name))] = target
    return targets


def train_sizes(source: Source) -> dict[int, int]:
    """Label → number of images to train on."""
    counts = Counter(item.label for item in source.records() if _is_trained_on(item))
    return {label: counts[label] for label in sorted(counts)}


def subset(source: Source, targets: Mapping[int, int], seed: int) -> Source:
    """The source with so many images to train on of each label, chosen by a hash of `seed` and name: fewer of the same
    seed are a part of more. Labels that are not named lose all."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for item in source.records():
        if _is_trained_on(item):
            names[item.label].append(item.name)
    kept = {
        label: set(sorted(own, key=lambda name: placed(seed, USE, name))[: targets.get(label, 0)])
        for label, own in names.items()
    }

    def records() -> Iterator[Item]:
        for item in source.records():
            if not _is_trained_on(item) or item.name in kept[item.label]:
                yield item

    return replace(source, records=records)


def _is_trained_on(item: Item) -> TypeGuard[Record]:
    return isinstance(item, Record) and item.split == TRAIN and item.label != NO_LABEL
