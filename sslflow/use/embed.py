"""Features of all images of a folder, as a Parquet table: in bounded memory, and resumed where it was stopped."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
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
from sslflow.ingest.images.examine import Examined, cores, examine_all
from sslflow.ingest.images.kinds import READ
from sslflow.ingest.images.losses import Losses
from sslflow.ingest.images.made_by_systems import told
from sslflow.ingest.images.raster import Used
from sslflow.ingest.put_aside import unusable_images
from sslflow.ingest.records import Rejected, escape, unescape
from sslflow.progress import Progress
from sslflow.runtime.device import place
from sslflow.runtime.files import replacing, write_csv
from sslflow.use.encoder import ImageEncoder
from sslflow.use.parts import CHANGED, KEY, Found, Part, hidden, lists, look, parts_of, place_of, tasks

PART, PART_BYTES = 256, 64 * 2**20
"""Images of a part, and what their features may take, if a batch of them doesn't take more: what is in memory, and
what a stopped run does again at most."""
SAY_EVERY = 10.0
"""Seconds, in a log."""
REJECTED = b"rejected"
NOTHING = np.empty((1, 0, 0), np.uint8)
TRACES = pa.schema(
    [("pages", pa.int32()), ("bands", pa.int32()), ("low", pa.float64()), ("high", pa.float64()), ("white", pa.int64())]
)
"""What a part keeps besides of each image: what it lost on the way to 8 bits."""


@dataclass(frozen=True)
class Embedded:
    """What became of the files of a folder."""

    images: int
    unusable: int
    other_files: int
    resumed: int
    """Images that an earlier, stopped run had done."""


def embed_folder(
    folder: Path,
    encoder: ImageEncoder,
    file: Path,
    device: torch.device,
    tell: Callable[[str], None],
    *,
    map: bool = False,
    batch: int = 64,
    workers: int = 0,
) -> Embedded:
    """Write the features of every image in `folder`, at any depth, to the Parquet `file`; with `map` those of the cells
    of the last map, too. What can't be used stands, with its reason, beside it: `features.quarantine.csv`.

    The table's rows and bytes depend on the images, the encoder and `batch`, not on `workers` (0: as many as cores),
    nor on whether a run was stopped and resumed. Parts wait in a hidden folder beside `file` until all are there.
    Raises `ValueError` for a folder without an image that can be used, too little space, or weights that give no
    finite features.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of images, found {'a file' if folder.exists() else 'nothing'}")
    if file.suffix != ".parquet" or file.is_dir():
        raise ValueError(f"{file}: the table is a Parquet file: give it a name that ends in .parquet")
    if batch < 1 or workers < 0:
        raise ValueError(f"--batch: expected 1 or more, found {batch}; --workers: 0 or more, found {workers}")
    place(encoder, device, "channels_last")
    schema = _schema(folder, encoder, map, batch)
    size = batch * max(1, min(-(-PART // batch), PART_BYTES // (batch * _row_bytes(schema))))
    found = look(folder, schema, size)
    _refuse(folder, file, found, schema)
    with parts_of(file) as parts:
        waiting = [part for part in found.parts if not place_of(parts, part).exists()]
        resumed = found.images - sum(part.images for part in waiting)
        if resumed:
            tell(f"embed  resumed: the features of {resumed} of {found.images} images are there already")
        asked = tasks(folder, found, waiting, schema, size, encoder.images)
        seen = examine_all(asked, encoder.images.decoder, workers or cores(), MAX_PIXELS)
        progress = Progress("embed", found.images, "image", resumed)
        with contextlib.closing(seen), contextlib.closing(progress):
            _fill(parts, waiting, seen, encoder, schema, batch, progress)
        images, rejected = _join(parts, found, file, schema, encoder, tell)
    if found.passed:
        tell(f"passed over, since hidden or made by a system: {told(found.passed)}")
    return Embedded(images, rejected, found.other_files, resumed)


def _schema(folder: Path, encoder: ImageEncoder, map: bool, batch: int) -> pa.Schema:
    """Of the table: its columns, and in its metadata what is known of them. The encoder is tried out."""
    images, device = encoder.images, encoder.device
    blank = torch.zeros(1, images.channels, images.side, images.side, device=device)
    about: dict[str, Any] = {**encoder.described(), "folder": str(folder.resolve()), "batch": batch}
    about |= {"device": device.type, "sslflow": __version__}
    columns = [("path", pa.string()), ("features", pa.list_(pa.float32(), encoder.encoder.dim))]
    if map:
        with torch.no_grad():
            _, last = encoder.features_and_map(blank)
        depth, rows, across = last.shape[1:]
        about["map"] = {"rows": rows, "columns": across, "dim": depth, "layout": "rows, columns, dim"}
        columns.append(("map", pa.list_(pa.float32(), rows * across * depth)))
    return pa.schema(columns, {KEY: json.dumps(about, sort_keys=True)})


def _row_bytes(schema: pa.Schema) -> int:
    return sum(4 * column.type.list_size for column in schema if pa.types.is_fixed_size_list(column.type))


def _refuse(folder: Path, file: Path, found: Found, schema: pa.Schema) -> None:
    """Raises `ValueError` where there is nothing to do, or no space for what it gives."""
    if not found.images:
        others = f"; it holds {found.other_files} other files" if found.other_files else ""
        others += f"; passed over: {told(found.passed)}" if found.passed else ""
        others += "".join(f"; {escape(one.name)}: {one.reason}" for part in found.parts for one in part.rejected[:3])
        raise ValueError(f"{folder}: there are no images here ({', '.join(READ)}){others}")
    file.parent.mkdir(parents=True, exist_ok=True)
    row = _row_bytes(schema)
    waiting = [part for part in found.parts if not place_of(hidden(file), part).exists()]
    needed = row * (found.images + sum(part.images for part in waiting))
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise ValueError(
            f"{file}: {found.images} images take {row / 1000:.1f} kB each, twice while they are made, together "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there: choose another disk"
            f"{', or leave out --map' if 'map' in schema.names else ''}"
        )


def _fill(
    parts: Path,
    waiting: list[Part],
    seen: Iterator[Examined | Rejected],
    encoder: ImageEncoder,
    schema: pa.Schema,
    batch: int,
    progress: Progress,
) -> None:
    """Write a file for each part that waits, of what is seen of its images."""
    began = said = time.monotonic()
    first = done = progress.first
    for part in waiting:
        rejected, made, before = list(part.rejected), [], done
        for items in lists(islice(seen, part.images), batch):
            usable = [item for item in items if isinstance(item, Examined)]
            rejected += [item for item in items if isinstance(item, Rejected)]
            if usable:
                made.append(_table(usable, encoder, schema))
            done, now = done + len(items), time.monotonic()
            if now - said > SAY_EVERY or not progress.bar.disable:
                said = now
                progress.say(done, f"{(done - first) / (now - began):.0f} img/s")
        if done - before < part.images:
            raise ValueError(CHANGED)
        columns = pa.schema([*schema, *TRACES])
        table = pa.concat_tables(made) if made else columns.empty_table()
        refused = json.dumps([(escape(item.name), escape(item.reason)) for item in rejected])
        with replacing(place_of(parts, part)) as temporary:
            pq.write_table(table.replace_schema_metadata({REJECTED: refused}), temporary, use_dictionary=False)


@torch.no_grad()
def _table(items: list[Examined], encoder: ImageEncoder, schema: pa.Schema) -> pa.Table:
    """Features, and what else is kept, of a batch."""
    images = encoder.shares([item.decoded.pixels for item in items]).contiguous(memory_format=torch.channels_last)
    columns: dict[str, Any] = {"path": [escape(item.name) for item in items]}
    if "map" in schema.names:
        features, last = encoder.features_and_map(images)
        found = {"features": features, "map": last.permute(0, 2, 3, 1).flatten(1)}
    else:
        found = {"features": encoder(images)}
    for name, tensor in found.items():
        values = tensor.float().cpu().contiguous().numpy()
        if not np.isfinite(values).all():
            raise ValueError(f"{encoder.name}: its features are not finite numbers: the weights are damaged")
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    lost = [item.decoded for item in items]
    traces = [{"pages": one.pages, "bands": one.bands, **(asdict(one.used) if one.used else {})} for one in lost]
    columns |= pa.Table.from_pylist(traces, schema=TRACES).to_pydict()
    return pa.table(columns, schema=pa.schema([*schema, *TRACES]))


def _join(
    parts: Path, found: Found, file: Path, schema: pa.Schema, encoder: ImageEncoder, tell: Callable[[str], None]
) -> tuple[int, int]:
    """Put the parts together to the table, and what can't be used to the one beside it; how many rows both have.
    Raises `ValueError` where there is nothing else."""
    losses, rejected, images = Losses(encoder.images.sixteen_bit), [], 0
    beside = file.with_suffix(".quarantine.csv")
    whole = parts / "whole.parquet"
    with replacing(whole) as temporary:
        with pq.ParquetWriter(temporary, schema, use_dictionary=False) as writer:
            for part in found.parts:
                content = pq.ParquetFile(place_of(parts, part))
                rejected += json.loads((content.schema_arrow.metadata or {}).get(REJECTED, b"[]"))
                table = content.read()
                _count(table, losses)
                images += table.num_rows
                if table.num_rows:
                    writer.write_table(table.select(schema.names).cast(schema))
        if rejected:
            write_csv(beside, ("path", "reason"), sorted(rejected))
            for line in unusable_images(beside.parent, beside.name):
                tell(line)
        else:
            beside.unlink(missing_ok=True)
        if not images:
            raise ValueError(f"{beside}: none of the {len(rejected)} images can be used; there is nothing to embed")
    whole.replace(file)
    for line in losses.warnings():
        tell(f"warning: {line}")
    return images, len(rejected)


def _count(table: pa.Table, losses: Losses) -> None:
    """Count what the images of a part lost."""
    traces = table.select(["path", *TRACES.names])
    for row in traces.to_pylist():
        used = None if row["low"] is None else Used(row["low"], row["high"], row["white"])
        if used or row["pages"] or row["bands"]:
            decoded = Decoded(NOTHING, 0, 0, "", used, row["pages"], row["bands"])
            losses.add(Examined(unescape(row["path"]), POOL, NO_LABEL, None, decoded, "", ""), repeated=True)
