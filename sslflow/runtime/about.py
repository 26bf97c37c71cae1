"""Which rows of the data a table is about, kept in its file: where nothing was found it has no line that tells."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

KEY = b"rows"


def about(rows: np.ndarray) -> dict[bytes, bytes]:
    """For the metadata of a table's schema: how many rows of the data it is about, and a hash of their numbers."""
    numbers = np.ascontiguousarray(rows, np.int64)
    return {KEY: f"{len(numbers)} {hashlib.sha256(numbers.tobytes()).hexdigest()}".encode()}


def says_about(table: pa.Table, rows: np.ndarray) -> bool | None:
    """Whether a table is about just these rows of the data, by its metadata; None where they don't tell."""
    found = (table.schema.metadata or {}).get(KEY)
    return None if found is None else found == about(rows)[KEY]
