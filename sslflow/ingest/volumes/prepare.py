"""Raw volumes to a prepared data set: of one orientation, spacing and range of values, cut to blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge

from sslflow.data.classes import counted, lacking, summary
from sslflow.data.formats import VolumeFormat, described
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN
from sslflow.ingest.images.repeats import unlabel
from sslflow.ingest.records import Rejected, escape
from sslflow.ingest.shards import Moments, ShardWriter
from sslflow.ingest.volumes.blocks import Block, cut
from sslflow.ingest.volumes.book import WARNING, Book, check, said
from sslflow.ingest.volumes.sources import Record, Source, open_source
from sslflow.ingest.volumes.tissues import Classes
from sslflow.ingest.volumes.volume import Unusable, Volume, WindowIn, canonical, finite, ranged, resampled
from sslflow.runtime.files import write_csv, write_json
from sslflow.runtime.folders import replacing_folder
from sslflow.settings.params import Count, Fraction, Natural, NonNegative

Side = Annotated[int, Ge(8)]
Window = tuple[float, float]

MAX_VOXELS = 2**28
COLUMNS = (
    ("volume", pa.string()),
    ("x", pa.int32()),
    ("y", pa.int32()),
    ("z", pa.int32()),
    ("sha256", pa.string()),
)
"""Of the manifest: the volume that a block is of, its first voxel there, and a hash of the volume's values."""


def prepare(
    folder: Path,
    tell: Callable[[str], None],
    *,
    kind: Literal["volumes"] = "volumes",
    source: str,
    path: str = "data/raw",
    labels: str = "",
    classes: tuple[str, ...] = (),
    side: Side = 32,
    stride: Natural = 0,
    spacing: NonNegative = 0.0,
    window: Window = (0.5, 99.5),
    window_in: WindowIn = "percent",
    empty: NonNegative = 5.0,
    least_tissue: Fraction = 0.01,
    seed: Natural = 0,
    test_fraction: Fraction = 0.2,
    duplicates: Literal["keep", "drop"] = "drop",
    max_bad: Fraction = 0.5,
    max_voxels: Count = MAX_VOXELS,
) -> dict[str, int]:
    """Fill `folder` with what `sslflow.data.dataset.Dataset` reads, and with `quarantine.csv`, `duplicates.csv` and,
    where there are label volumes, `annotations.csv`; the counts.

    `kind` says whose settings these are; `tell` gets a line now and then. The settings are explained in
    docs/volumes.md. One volume is in memory at a time. `folder` is replaced at the end, or not touched. Raises
    `ValueError` where the source is not there, holds no volume, or more than the share `max_bad` of it is unusable.
    """
    if window[0] >= window[1] or (window_in == "percent" and not 0 <= window[0] < window[1] <= 100):
        raise ValueError(
            f"data.window is {window[0]:g} to {window[1]:g}: expected the smaller one first"
            + (", both from 0 to 100, or data.window_in: values" if window_in == "percent" else "")
        )
    found = open_source(source, path, labels=labels, seed=seed, test_fraction=test_fraction, max_voxels=max_voxels)
    where = source if source.partition(":")[1] else f"{source} {path}"
    tissues = Classes(found, classes) if any(record.tissues for record in found.records) else None
    names = found.classes or (tissues.names[1:] if tissues else ())
    warnings: list[str] = []

    def say(line: str) -> None:
        if line.startswith(WARNING):
            warnings.append(line.removeprefix(WARNING))
        tell(line)

    for note in found.notes:
        say(note)
    book, known, moments = Book(list(found.rejected)), dict[int, np.ndarray](), dict[str, Moments]()
    labelled: list[tuple[str, int]] = []
    hashes: list[str] = []
    with replacing_folder(folder) as temporary:
        shape = (1, side, side, side)
        with ShardWriter(temporary, {"volumes": ("|u1", shape)}, COLUMNS) as writer:
            for number, record in enumerate(found.records, start=1):
                for block, hashed in _blocks(
                    record, tissues, book, side, stride or side, spacing, window, window_in, empty,
                    duplicates == "drop", max_voxels,
                ):  # fmt: skip
                    label = record.label if found.classes else block.label(least_tissue)
                    row = writer.add({"volumes": block.values[None]}, _columns(record, block, label, hashed))
                    moments.setdefault(record.split, Moments()).add(block.values.reshape(1, side, -1))
                    labelled.append((record.split, label))
                    hashes.append(hashed)
                    if block.tissues is not None:
                        known[row] = block.tissues.reshape(side, -1)
                if number % 100 == 0:
                    tell(f"prepare  {number} volumes of {len(found.records)}  {len(writer)} blocks")
            check(book, len(writer), where, max_bad)
        if unsure := {row for row, hashed in enumerate(hashes) if book.contradicted[hashed]}:
            unlabel(temporary / "manifest.parquet", unsure)
            labelled = [(split, NO_LABEL if row in unsure else label) for row, (split, label) in enumerate(labelled)]
        counts = {split: writer.count(split) for split in (TRAIN, TEST, POOL)}
        if not counts[POOL] and not counts[TRAIN]:
            raise ValueError(f"{where}: all {len(writer)} blocks are to test on; there is nothing to pretrain on")
        form = VolumeFormat(1, side, *moments[POOL if counts[POOL] else TRAIN].mean_and_std())
        for line in (*said(book, spacing), *_of_classes(names, labelled, found)):
            say(line)
        write_csv(temporary / "quarantine.csv", ("path", "reason"), book.put_aside())
        write_csv(
            temporary / "duplicates.csv", ("path", "split", "fate", "first_path", "first_split", "leak"), book.copies
        )
        facts = {**described(form, names), "counts": counts, "warnings": warnings}
        if tissues:
            write_csv(temporary / "annotations.csv", ("path", "fate", "reason"), book.unusable_labels())
            from sslflow.data.truth import Annotated as Known  # brings torch
            from sslflow.data.truth import truth_facts, write_truth

            write_truth(temporary, {row: Known(mask) for row, mask in known.items()})
            facts["truth"] = {**truth_facts(tissues.names, ()), "shape": [side, side, side]}
        write_json(temporary / "dataset.json", facts)
    return {
        "blocks": len(writer),
        **counts,
        "classes": len(names),
        "volumes": book.volumes,
        "empty": book.empty,
        "quarantined": len(book.rejected),
        "duplicates": len(book.copies),
        "leaked": sum(leak == "yes" for *_, leak in book.copies),
        "label_conflicts": book.contradicted.total(),
        "other_files": found.others,
        "annotations_unusable": len(book.flaws),
    }


def _blocks(
    record: Record,
    classes: Classes | None,
    book: Book,
    side: int,
    stride: int,
    spacing: float,
    window: Window,
    window_in: WindowIn,
    empty: float,
    drop: bool,
    max_voxels: int,
) -> Iterator[tuple[Block, str]]:
    """The blocks of a volume that aren't empty, and the hash of its values; none where it can't be used."""
    try:
        stored = finite(record.read())
        volume = canonical(stored)
        values = ranged(resampled(volume.values, volume.steps, spacing, max_voxels), window, window_in)
        if 2 * min(values.shape) < side:
            sizes = " x ".join(map(str, values.shape))
            raise Unusable(f"too small: {sizes} voxels{' once resampled' if spacing else ''}, and data.side is {side}")
    except Unusable as error:
        book.rejected.append(Rejected(record.name, str(error)))
        return
    hashed = hashlib.sha256(repr(values.shape).encode() + np.ascontiguousarray(values).tobytes()).hexdigest()
    if (first := book.first.setdefault(hashed, record)) is not record:
        leak = first.split == TEST and record.split != TEST
        told = (escape(record.name), record.split, "dropped" if drop else "kept", escape(first.name), first.split)
        book.copies.append((*told, "yes" if leak else "no"))
        book.contradicted[hashed] += first.label != record.label
        if drop:
            return
    book.volumes += 1
    book.stored[stored.stored_as] += 1
    book.filled += min(values.shape) < side
    book.unknown += bool(spacing) and volume.steps is None
    if volume.steps is not None:
        book.spacings[tuple(float(f"{step:.3g}") for step in volume.steps)] += 1
    if volume.patient:
        book.patients.setdefault(volume.patient, set()).add(record.group)
    own = _tissues(record, volume, classes, book)
    own = None if own is None else resampled(own, volume.steps, spacing, max_voxels, classes=True)
    for block in cut(values, own, side, stride):
        if block.values.std() < empty:
            book.empty += 1
        else:
            yield block, hashed


def _tissues(record: Record, volume: Volume, classes: Classes | None, book: Book) -> np.ndarray | None:
    if record.tissues is None or classes is None:
        return None
    try:
        return classes.of(record.tissues(), volume)
    except Unusable as error:
        book.flaws.append((record.tissue_name, str(error)))
        return None


def _columns(record: Record, block: Block, label: int, hashed: str) -> dict[str, object]:
    x, y, z = block.place
    name = escape(record.name)
    return {
        "path": f"{name}#{x},{y},{z}",
        "split": record.split,
        "label": label,
        "group": escape(record.group),
        "volume": name,
        "x": x,
        "y": y,
        "z": z,
        "sha256": hashed,
    }


def _of_classes(names: tuple[str, ...], labelled: list[tuple[str, int]], source: Source) -> Iterator[str]:
    if not names:
        return
    counts = counted(names, [label for _, label in labelled], [split for split, _ in labelled])
    yield f"labelled blocks of {summary({name: sum(own.values()) for name, own in counts.items()})}"
    if without := sum(label == NO_LABEL for _, label in labelled):
        why = "no tissue takes the share data.least_tissue of them, or their class isn't known"
        yield f"{without} blocks have no label: {why}"
    for line in lacking(counts, tested=any(record.split == TEST for record in source.records)):
        yield f"{WARNING}{line}"
