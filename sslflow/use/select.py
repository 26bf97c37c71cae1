"""Which images of a table of features to label next, as a table that goes back in as `data.labels`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import torch

from sslflow.clustering.choose import covering, typical
from sslflow.drawing.contact_sheet import contact_sheet
from sslflow.ingest.images.named import COLUMNS, read_labels
from sslflow.ingest.records import unescape
from sslflow.runtime.files import reading, replacing, write_csv
from sslflow.use.search import facts_of, thumbnail

Way = Literal["typical", "covering"]

ACROSS, DRAWN = 12, 240
"""Images in a row of the contact sheet, and on all of it."""


def select(
    table: Path, budget: int, labels: Path | None, device: torch.device, *, by: Way = "typical", seed: int = 0
) -> tuple[list[tuple[str, str]], list[str]]:
    """Path and label of the images that have one in `labels`, and the paths of `budget` others to label next, the most
    useful first. Raises `ValueError` for tables that don't fit together, or have too few images."""
    facts_of(table)
    with reading(table):
        content = pq.read_table(table, columns=["path", "features"])
    names = content["path"].to_pylist()
    column = content["features"].combine_chunks()
    features = torch.from_numpy(column.flatten().to_numpy().reshape(len(names), -1).copy()).to(device)
    known = read_labels(labels) if labels else {}
    places = {name: row for row, name in enumerate(names)} | {unescape(name): row for row, name in enumerate(names)}
    unknown = [path for path in known if path not in places]
    if unknown:
        raise ValueError(
            f"{labels}: {len(unknown):,} of its {len(known):,} images are not in {table}, such as {unknown[0]}; paths "
            "are relative to the folder that the table is of"
        )
    rows = torch.tensor([places[path] for path in known], dtype=torch.int64)
    chosen = typical(features, budget, seed, rows) if by == "typical" else covering(features, budget, rows)
    return list(known.items()), [names[row] for row in chosen.tolist()]


def write_selected(file: Path, known: Sequence[tuple[str, str]], chosen: Sequence[str]) -> None:
    """Write the table: what has a label, then what is to get one."""
    write_csv(file, COLUMNS, [*known, *((path, "") for path in chosen)])


def write_selected_sheet(file: Path, folder: Path, chosen: Sequence[str], tell: Callable[[str], None]) -> None:
    """A contact sheet of the images to label, in order, as PNG; what can't be read any more is grey."""
    if len(chosen) > DRAWN:
        tell(f"{file}: drawn are the first {DRAWN} of {len(chosen):,}")
    cells = [thumbnail(folder / unescape(path), tell) for path in chosen[:DRAWN]]
    across = min(ACROSS, len(cells))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % across)
    labels = [str(number + 1) for number in range(0, len(cells), across)]
    sheet = contact_sheet(np.stack(cells), columns=across, row_labels=labels)
    with replacing(file) as temporary:
        sheet.save(temporary, format="PNG")
