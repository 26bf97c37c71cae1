"""Tables and arrays that stages leave, read as whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from sslflow.runtime.files import reading


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, or the columns named. Raises `ValueError` where it isn't whole or lacks one."""
    with reading(file):
        missing = set(columns or ()) - set(pq.read_schema(file).names)
        if missing:
            raise KeyError(", ".join(sorted(missing)))
        return pq.read_table(file, columns=columns and list(columns))


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name. Raises `ValueError` where it isn't whole."""
    with reading(file):
        return load_file(file)
