"""What becomes of volumes on their way to blocks, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sslflow.data.classes import shown
from sslflow.ingest.records import Rejected, escape
from sslflow.ingest.volumes.sources import Record

WARNING = "warning: "
_EXAMPLES = 5
_UNEVEN = 1.05
"""By how much the sides of a voxel may differ without a word."""


@dataclass
class Book:
    """What becomes of the volumes."""

    rejected: list[Rejected]
    flaws: list[tuple[str, str]] = field(default_factory=list)
    """Label volumes that can't be used, and why."""
    copies: list[tuple[str, str, str, str, str, str]] = field(default_factory=list)
    first: dict[str, Record] = field(default_factory=dict)
    contradicted: Counter[str] = field(default_factory=Counter)
    """Hashes of volumes that lie in a class, and how many equal ones in another."""
    stored: Counter[str] = field(default_factory=Counter)
    patients: dict[str, set[str]] = field(default_factory=dict)
    spacings: Counter[tuple[float, ...]] = field(default_factory=Counter)
    volumes: int = 0
    empty: int = 0
    filled: int = 0
    unknown: int = 0
    """Volumes whose spacing isn't known though one is asked for."""

    def put_aside(self) -> list[tuple[str, str]]:
        """Lines of quarantine.csv."""
        return sorted((escape(item.name), escape(item.reason)) for item in self.rejected)

    def unusable_labels(self) -> list[tuple[str, str, str]]:
        """Lines of annotations.csv."""
        fate = "blocks count as not annotated"
        return [(escape(name), fate, escape(reason)) for name, reason in self.flaws]


def check(book: Book, blocks: int, where: str, max_bad: float) -> None:
    """Raises `ValueError` where more than the share `max_bad` of the volumes can't be used, or no block is left."""
    good, bad = book.volumes + len(book.copies), len(book.rejected)
    if good and bad / (good + bad) <= max_bad:
        if not blocks:
            raise ValueError(
                f"{where}: all {book.empty} blocks of {book.volumes} volumes are empty: lower data.empty, or look at "
                "data.window"
            )
        return
    reasons = Counter(item.reason.partition(":")[0] for item in book.rejected).most_common(_EXAMPLES)
    examples = "".join(f"\n  {escape(item.name)}: {escape(item.reason)}" for item in book.rejected[:_EXAMPLES])
    limit = f"more than data.max_bad = {max_bad:g} allows" if good else "there is nothing to prepare"
    told = ", ".join(f"{count} {reason}" for reason, count in reasons)
    raise ValueError(f"{where}: {bad} of {good + bad} volumes can't be used, {limit} ({told}):{examples}")


def said(book: Book, spacing: float) -> Iterator[str]:
    """What was done to the volumes, and what may be meant otherwise."""
    known = {stored: count for stored, count in book.stored.items() if stored}
    if known:
        told = ", ".join(f"{count} from {stored}" for stored, count in sorted(known.items()))
        yield f"axes of {sum(known.values())} volumes brought to run to the right, to the front, upwards (RAS): {told}"
    if count := book.stored[""]:
        yield (
            f"{count} volumes don't say where their axes run: taken as they are, the first to the right, the last "
            "upwards"
        )
    uneven = [steps for steps in book.spacings if max(steps) > _UNEVEN * min(steps)]
    if not spacing and (uneven or len(book.spacings) > 1):
        shown_as = shown((" x ".join(f"{step:g}" for step in steps) for steps, _ in book.spacings.most_common()), 3)
        what = "voxels aren't cubes" if uneven else "volumes differ in spacing"
        yield f"{WARNING}{what} ({shown_as} mm): set data.spacing to resample them to cubes of so many millimetres"
    if book.unknown:
        yield f"{WARNING}{book.unknown} volumes don't say their spacing: not resampled to data.spacing"
    if book.filled:
        yield (
            f"{book.filled} volumes are shorter than data.side along an axis: filled up with the darkest value; a "
            "smaller data.side leaves that out"
        )
    several = {name: groups for name, groups in book.patients.items() if len(groups) > 1}
    for name, groups in list(several.items())[:_EXAMPLES]:
        yield (
            f"{WARNING}PatientID {escape(name)} stands in {len(groups)} folders "
            f"({shown(map(escape, sorted(groups)), 3)}), which are taken for one patient each: put series of one "
            "patient into one folder, or its blocks may be both learnt from and tested on"
        )
    leaks = sum(leak == "yes" for *_, leak in book.copies)
    if leaks:
        yield f"{WARNING}leakage: {leaks} volumes to learn from equal one to test on; see duplicates.csv"
    if count := book.contradicted.total():
        yield (
            f"{WARNING}{count} volumes equal one of another class: none of them keeps a label; delete those that are "
            "wrong (see duplicates.csv)"
        )
    for name, reason in book.flaws[:_EXAMPLES]:
        yield f"{WARNING}label volume {escape(name)} isn't used: {reason}"
    if len(book.flaws) > _EXAMPLES:
        yield f"{WARNING}{len(book.flaws)} label volumes aren't used: see annotations.csv"
    if book.empty:
        yield f"{book.empty} blocks are empty, and left out (data.empty)"
