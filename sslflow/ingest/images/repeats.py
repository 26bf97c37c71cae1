"""Images that equal another one: what is listed of them, and what becomes of labels that contradict each other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sslflow.data.classes import shown
from sslflow.data.splits import NO_LABEL
from sslflow.ingest.records import escape
from sslflow.runtime.files import replacing, write_csv

_COLUMNS = ("path", "split", "fate", "first_path", "first_split", "same", "leak", "label", "first_label")
_EXAMPLES = 5


@dataclass(frozen=True)
class Repeat:
    """An image whose prepared pixels are those of the image in `row`."""

    name: str
    split: str
    label: int
    sha256: str
    row: int
    leaked: bool
    kept: int | None
    """Its own row, unless it was dropped."""


def write_repeats(folder: Path, repeats: Sequence[Repeat], classes: Sequence[str]) -> tuple[list[str], int]:
    """`duplicates.csv`, beside a manifest that is written; what is to be said of them, and the number of repeats whose
    label is another than the first one's.

    Equal images with different labels lose them in the manifest, all of them: nobody knows which is right.
    """
    manifest = pq.ParquetFile(folder / "manifest.parquet")
    first = _found(manifest, sorted({repeat.row for repeat in repeats}))
    rows, pairs, contradicted, copies, dropped = [], [], set(), 0, 0
    for repeat in repeats:
        path, split, label, sha256 = first[repeat.row]
        name = escape(repeat.name)
        own, other = ("" if one == NO_LABEL else classes[one] for one in (repeat.label, label))
        if own and other and own != other:
            contradicted.add(repeat.row)
            pairs.append(f"{path} ({other}) and {name} ({own})")
        copies += repeat.sha256 == sha256
        dropped += repeat.kept is None
        same = "bytes" if repeat.sha256 == sha256 else "pixels"
        fate = "dropped" if repeat.kept is None else "kept"
        rows.append((name, repeat.split, fate, path, split, same, "yes" if repeat.leaked else "no", own, other))
    write_csv(folder / "duplicates.csv", _COLUMNS, rows)
    said = []
    if pairs:
        also = {repeat.kept for repeat in repeats if repeat.row in contradicted and repeat.kept is not None}
        unlabel(folder / "manifest.parquet", contradicted | also)
        said.append(
            f"equal images with different labels: {shown(pairs, _EXAMPLES)}; none of them keeps a label, pretraining "
            "may see them; delete those that are wrong (see duplicates.csv)"
        )
    kept = manifest.metadata.num_rows
    if dropped > kept:
        said.append(
            f"{dropped:,} of {kept + dropped:,} images are dropped, since their files hold the same pictures as "
            f"others ({copies:,} are copies of a file): see duplicates.csv; duplicates: keep leaves them in"
        )
    return said, len(pairs)


def _found(manifest: pq.ParquetFile, rows: Sequence[int]) -> dict[int, tuple[str, str, int, str]]:
    """Path, split, label and hash of the file in each of the rows, which are sorted: a group of rows is in memory."""
    found, start = dict[int, tuple[str, str, int, str]](), 0
    for number in range(manifest.num_row_groups):
        end = start + manifest.metadata.row_group(number).num_rows
        own = rows[bisect_left(rows, start) : bisect_left(rows, end)]
        if own:
            group = manifest.read_row_group(number, columns=["path", "split", "label", "sha256"])
            table = group.take([row - start for row in own])
            found |= zip(own, zip(*(column.to_pylist() for column in table.columns), strict=True), strict=True)
        start = end
    return found


def unlabel(manifest: Path, rows: set[int]) -> None:
    """Take away the labels of the rows."""
    former = pq.ParquetFile(manifest)
    with replacing(manifest) as temporary, pq.ParquetWriter(temporary, former.schema_arrow) as writer:
        for number in range(former.num_row_groups):
            group = former.read_row_group(number)
            pairs = zip(group["row"].to_pylist(), group["label"].to_pylist(), strict=True)
            labels = pa.array([NO_LABEL if row in rows else label for row, label in pairs], pa.int64())
            place = group.schema.get_field_index("label")
            writer.write_table(group.set_column(place, group.schema.field(place), labels))
