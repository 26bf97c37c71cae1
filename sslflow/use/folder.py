"""The images of a folder through a network, part by part: in bounded memory, and resumed where it was stopped."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sslflow import __version__
from sslflow.data.splits import NO_LABEL, POOL
from sslflow.ingest.images.decode import MAX_PIXELS, Decoded
from sslflow.ingest.images.examine import Examined, Work, cores, examine_all
from sslflow.ingest.images.kinds import READ
from sslflow.ingest.images.losses import Losses
from sslflow.ingest.images.made_by_systems import told
from sslflow.ingest.images.raster import Used
from sslflow.ingest.put_aside import unusable_images
from sslflow.ingest.records import Rejected, escape, unescape
from sslflow.progress import Progress
from sslflow.runtime.files import replacing, write_csv
from sslflow.use.back import cut_in_words
from sslflow.use.images import Images
from sslflow.use.parts import CHANGED, KEY, Content, Part, hidden, lists, look, parts_of, place_of, tasks

PART, PART_BYTES = 256, 64 * 2**20
"""Images of a part, and what their rows may take, if a batch of them doesn't take more: what is in memory, and what a
stopped run does again at most."""
SAY_EVERY = 10.0
"""Seconds, in a log."""
REJECTED = b"rejected"
NOTHING = np.empty((1, 0, 0), np.uint8)
TRACES = pa.schema(
    [("pages", pa.int32()), ("bands", pa.int32()), ("low", pa.float64()), ("high", pa.float64()), ("white", pa.int64())]
)
"""What a part keeps besides of each image: what it lost on the way to 8 bits."""


@dataclass(frozen=True)
class Task:
    """What is made of the images of a folder."""

    name: str
    """Of the command."""
    folder: Path
    out: Path
    """What is written in the end; parts wait beside it."""
    images: Images
    schema: pa.Schema
    """Of a row for each image, `path` among its columns; its metadata say what all rows depend on."""
    columns: Callable[[list[Examined]], dict[str, Any]]
    """All columns but `path` of a batch."""
    row_bytes: int = 0
    """What a row takes on the disk; 0: little."""
    without: str = ""
    """What to do where that is too much."""


@dataclass(frozen=True)
class Done:
    """What became of the files of a folder."""

    images: int
    unusable: int
    other_files: int
    resumed: int
    """Images that an earlier, stopped run had done."""


@dataclass
class Made:
    """The rows of all images, as far as they could be used, in parts that are read one after the other."""

    task: Task
    parts: Path
    found: Content
    resumed: int
    images: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Name and reason of what can't be used."""
    losses: Losses = field(init=False)

    def __post_init__(self) -> None:
        self.losses = Losses(self.task.images.sixteen_bit)

    def tables(self) -> Iterator[pa.Table]:
        """All rows, of the task's schema; read to the end, the counts are right."""
        for part in self.found.parts:
            content = pq.ParquetFile(place_of(self.parts, part))
            self.rejected += json.loads((content.schema_arrow.metadata or {}).get(REJECTED, b"[]"))
            table = content.read()
            _count(table, self.losses)
            self.images += table.num_rows
            if table.num_rows:
                yield table.select(self.task.schema.names).cast(self.task.schema)

    def names(self) -> Iterator[str]:
        """The column `path` alone."""
        for part in self.found.parts:
            yield from pq.read_table(place_of(self.parts, part), columns=["path"])["path"].to_pylist()

    def tell_rejected(self, beside: Path, tell: Callable[[str], None]) -> None:
        """Write what can't be used to the table `beside`, if anything. Raises `ValueError` where there is nothing
        else."""
        if self.rejected:
            write_csv(beside, ("path", "reason"), sorted(self.rejected))
            for line in unusable_images(beside.parent, beside.name):
                tell(line)
        else:
            beside.unlink(missing_ok=True)
        if not self.images:
            raise ValueError(
                f"{beside}: none of the {len(self.rejected)} images can be used; there is nothing to {self.task.name}"
            )

    def done(self, tell: Callable[[str], None]) -> Done:
        """Say what was lost, and count."""
        for line in self.losses.warnings():
            tell(f"warning: {line}")
        if self.found.passed:
            tell(f"passed over, since hidden or made by a system: {told(self.found.passed)}")
        return Done(self.images, len(self.rejected), self.found.other_files, self.resumed)


def about(described: Mapping[str, Any], folder: Path, batch: int, device: torch.device) -> dict[str, Any]:
    """What all rows depend on, and where they are from: the network as it is `described`, and how it was run."""
    ran = {"folder": str(folder.resolve()), "batch": batch, "device": device.type, "sslflow": __version__}
    return {**described, **ran}


def schema_of(columns: Sequence[tuple[str, pa.DataType]], known: Mapping[str, Any]) -> pa.Schema:
    """Of rows with these columns, and what is `known` of all."""
    return pa.schema(columns, {KEY: json.dumps(known, sort_keys=True)})


def tell_cut_away(rows: Sequence[Mapping[str, Any]], images: Images, then: str, tell: Callable[[str], None]) -> None:
    """Say what the network doesn't see of images of the rows' `width` and `height`, if anything, and what `then`."""
    if said := cut_in_words([(one["width"], one["height"]) for one in rows], images):
        tell(f"warning: {said}; {then}")


def refuse(folder: Path, batch: int, workers: int) -> None:
    """Raises `ValueError` for what can't be worked on."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of images, found {'a file' if folder.exists() else 'nothing'}")
    if batch < 1 or workers < 0:
        raise ValueError(f"--batch: expected 1 or more, found {batch}; --workers: 0 or more, found {workers}")


@contextlib.contextmanager
def worked_through(task: Task, tell: Callable[[str], None], *, batch: int, workers: int) -> Iterator[Made]:
    """Rows of every image in the task's folder, at any depth, with what can't be used put aside.

    They depend on the images, the task and `batch`, not on `workers` (0: as many as cores), nor on whether a run was
    stopped and resumed. Parts wait in a hidden folder beside `task.out`, which is removed once what is done with the
    rows went well. Raises `ValueError` for a folder without an image, and too little space.
    """
    size = batch * max(1, min(-(-PART // batch), PART_BYTES // (batch * max(1, task.row_bytes))))
    found = look(task.folder, task.schema, size)
    _refuse(task, found)
    with parts_of(task.out) as parts:
        waiting = [part for part in found.parts if not place_of(parts, part).exists()]
        resumed = found.images - sum(part.images for part in waiting)
        if resumed:
            tell(f"{task.name}  resumed: {resumed} of {found.images} images are done already")
        asked = tasks(task.folder, found, waiting, task.schema, size, task.images)
        seen = examine_all(asked, Work(task.images.decoder), workers or cores(), MAX_PIXELS)
        progress = Progress(task.name, found.images, "image", resumed)
        with contextlib.closing(seen), contextlib.closing(progress):
            _fill(task, parts, waiting, seen, batch, progress)
        yield Made(task, parts, found, resumed)


def _refuse(task: Task, found: Content) -> None:
    """Raises `ValueError` where there is nothing to do, or no space for what it gives."""
    if not found.images:
        others = f"; it holds {found.other_files} other files" if found.other_files else ""
        others += f"; passed over: {told(found.passed)}" if found.passed else ""
        others += "".join(f"; {escape(one.name)}: {one.reason}" for part in found.parts for one in part.rejected[:3])
        raise ValueError(f"{task.folder}: there are no images here ({', '.join(READ)}){others}")
    out = task.out
    out.parent.mkdir(parents=True, exist_ok=True)
    waiting = [part for part in found.parts if not place_of(hidden(out), part).exists()]
    needed = task.row_bytes * (found.images + sum(part.images for part in waiting))
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise ValueError(
            f"{out}: {found.images} images take {task.row_bytes / 1000:.1f} kB each, twice while they are made, "
            f"together {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there: choose another disk{task.without}"
        )


def _fill(
    task: Task,
    parts: Path,
    waiting: list[Part],
    seen: Iterator[Examined | Rejected],
    batch: int,
    progress: Progress,
) -> None:
    """Write a file for each part that waits, of what is seen of its images."""
    columns = pa.schema([*task.schema, *TRACES])
    began = said = time.monotonic()
    first = done = progress.first
    for part in waiting:
        rejected, made, before = list(part.rejected), [], done
        for items in lists(islice(seen, part.images), batch):
            usable = [item for item in items if isinstance(item, Examined)]
            rejected += [item for item in items if isinstance(item, Rejected)]
            if usable:
                made.append(_table(task, usable, columns))
            done, now = done + len(items), time.monotonic()
            if now - said > SAY_EVERY or not progress.bar.disable:
                said = now
                progress.say(done, f"{(done - first) / (now - began):.0f} img/s")
        if done - before < part.images:
            raise ValueError(CHANGED)
        table = pa.concat_tables(made) if made else columns.empty_table()
        refused = json.dumps([(escape(item.name), escape(item.reason)) for item in rejected])
        with replacing(place_of(parts, part)) as temporary:
            pq.write_table(table.replace_schema_metadata({REJECTED: refused}), temporary, use_dictionary=False)


def _table(task: Task, items: list[Examined], columns: pa.Schema) -> pa.Table:
    """What is made of a batch, and what else is kept of it."""
    lost = [item.decoded for item in items]
    traces = [{"pages": one.pages, "bands": one.bands, **(asdict(one.used) if one.used else {})} for one in lost]
    rows = {"path": [escape(item.name) for item in items], **task.columns(items)}
    return pa.table({**rows, **pa.Table.from_pylist(traces, schema=TRACES).to_pydict()}, schema=columns)


def _count(table: pa.Table, losses: Losses) -> None:
    """Count what the images of a part lost."""
    traces = table.select(["path", *TRACES.names])
    for row in traces.to_pylist():
        used = None if row["low"] is None else Used(row["low"], row["high"], row["white"])
        if used or row["pages"] or row["bands"]:
            decoded = Decoded(NOTHING, 0, 0, "", used, row["pages"], row["bands"])
            losses.add(Examined(unescape(row["path"]), POOL, NO_LABEL, None, decoded, "", ""), repeated=True)
