"""Features of all images of a folder, as a Parquet table: in bounded memory, and resumed where it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sslflow.ingest.images.examine import Examined
from sslflow.runtime.device import place
from sslflow.runtime.files import replacing
from sslflow.use.encoder import ImageEncoder
from sslflow.use.folder import Done, Task, about, refuse, schema_of, worked_through


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
) -> Done:
    """Write the features of every image in `folder`, at any depth, to the Parquet `file`; with `map` those of the cells
    of the last map, too. What can't be used stands, with its reason, beside it: `features.quarantine.csv`.

    The table's rows and bytes depend on the images, the encoder and `batch`, not on `workers` (0: as many as cores),
    nor on whether a run was stopped and resumed. Raises `ValueError` for a folder without an image that can be used,
    too little space, or weights that give no finite features.
    """
    refuse(folder, batch, workers)
    if file.suffix != ".parquet" or file.is_dir():
        raise ValueError(f"{file}: the table is a Parquet file: give it a name that ends in .parquet")
    place(encoder, device, "channels_last")
    schema = _schema(folder, encoder, map, batch)

    def columns(items: list[Examined]) -> dict[str, Any]:
        return _columns(items, encoder, schema)

    without = ", or leave out --map" * map
    task = Task("embed", folder, file, encoder.images, schema, columns, _row_bytes(schema), without)
    with worked_through(task, tell, batch=batch, workers=workers) as made:
        whole = made.parts / "whole.parquet"
        with replacing(whole) as temporary:
            with pq.ParquetWriter(temporary, schema, use_dictionary=False) as writer:
                for table in made.tables():
                    writer.write_table(table)
            made.tell_rejected(file.with_suffix(".quarantine.csv"), tell)
        whole.replace(file)
        return made.done(tell)


def _schema(folder: Path, encoder: ImageEncoder, map: bool, batch: int) -> pa.Schema:
    """Of the table: its columns, and in its metadata what is known of them. The encoder is tried out."""
    images, device = encoder.images, encoder.device
    blank = torch.zeros(1, images.channels, images.side, images.side, device=device)
    known = about(encoder.described(), folder, batch, device)
    columns = [("path", pa.string()), ("features", pa.list_(pa.float32(), encoder.encoder.dim))]
    if map:
        with torch.no_grad():
            _, last = encoder.features_and_map(blank)
        depth, rows, across = last.shape[1:]
        known["map"] = {"rows": rows, "columns": across, "dim": depth, "layout": "rows, columns, dim"}
        columns.append(("map", pa.list_(pa.float32(), rows * across * depth)))
    return schema_of(columns, known)


def _row_bytes(schema: pa.Schema) -> int:
    return sum(4 * column.type.list_size for column in schema if pa.types.is_fixed_size_list(column.type))


@torch.no_grad()
def _columns(items: list[Examined], encoder: ImageEncoder, schema: pa.Schema) -> dict[str, Any]:
    """Features of a batch."""
    images = encoder.shares([item.decoded.pixels for item in items])
    columns: dict[str, Any] = {}
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
    return columns
