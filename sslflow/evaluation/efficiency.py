"""How good frozen features are with few labels: the probes, fitted again on small draws of the labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Gt, Le

from sslflow.data.dataset import Dataset
from sslflow.data.splits import TRAIN
from sslflow.evaluation.labels import labelled_subset, some_of_each
from sslflow.runtime.files import read_csv, replacing
from sslflow.runtime.tables import read_parquet
from sslflow.settings.params import Count, Natural

Fit = tuple[str, str, int, int]
"""`linear`, `knn` or `finetune`; `each` or `share`; with `each` the labels of a class, with `share` all labels; number
of the draw."""
Share = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True, kw_only=True)
class Few:
    """With how few labels frozen features are probed: `each`, so many of every class; `shares` of all; each with so
    many `draws` of images, the same for all that is compared. Without `draws`: not at all."""

    each: tuple[Count, ...] = (1, 2, 5)
    shares: tuple[Share, ...] = (0.01, 0.02, 0.05, 0.1)
    draws: Natural = 3


def draws_of(dataset: Dataset, few: Few) -> Iterator[tuple[str, int, int, np.ndarray]]:
    """`each` or `share`, the number of labels as in `Fit`, that of the draw, and the rows that it has labels of. What
    comes to all labels, or to as many as another share, is not among them."""
    everything = len(dataset.labelled_rows(TRAIN))
    for draw in range(few.draws):
        for number in few.each:
            rows = some_of_each(dataset, number, draw)
            if len(rows) < everything:
                yield "each", number, draw, rows
        shares = {len(rows): rows for share in few.shares for rows in [labelled_subset(dataset, share, draw)]}
        for size, rows in sorted(shares.items()):
            if size < everything:
                yield "share", size, draw, rows


def few_name(each: int, draw: int) -> str:
    """How the answers of an encoder that was fine-tuned on so many labels of every class are called in its table."""
    return f"each {each} {draw}"


def read_tuned(file: Path) -> tuple[np.ndarray, dict[Fit, np.ndarray]]:
    """What `read_few` gives, of encoders fine-tuned on a few labels of every class; empty where there are none."""
    table = read_csv(file) if file.exists() else []
    names = [name for name in (table[0] if table else ()) if name.startswith("each ")]
    found: dict[Fit, np.ndarray] = {}
    for name in names:
        _, each, draw = name.split()
        found["finetune", "each", int(each), int(draw)] = np.array([one[name] == one["actual"] for one in table])
    return np.array([int(one["row"]) for one in table], dtype=np.int64), found


def write_few(file: Path, rows: np.ndarray, actual: np.ndarray, answers: Mapping[Fit, np.ndarray]) -> None:
    """Write what each fit takes the test images for: class numbers, a column for each, beside row and actual class."""
    columns = {"row": rows, "actual": actual, **{" ".join(map(str, fit)): found for fit, found in answers.items()}}
    with replacing(file) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_few(file: Path) -> tuple[np.ndarray, dict[Fit, np.ndarray]]:
    """Rows of the test images, and of each fit which it gets right, bool `(n,)`."""
    table = read_parquet(file)
    actual = table["actual"].to_numpy()
    found = {}
    for name in table.column_names[2:]:
        probe, way, labels, draw = name.split()
        found[probe, way, int(labels), int(draw)] = table[name].to_numpy() == actual
    return table["row"].to_numpy(), found
