"""Prepared data on disk: memory-mapped shards of each field, and a manifest with a row for each example."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sslflow import paths
from sslflow.data.encoded import COLUMNS, OPEN_SHARDS, EncodedImages, Stored
from sslflow.data.fields import Fields, Readable
from sslflow.data.formats import AnyFormat, ImageFormat, format_of
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN
from sslflow.data.truth import Truth
from sslflow.data.whole import require_whole
from sslflow.runtime.files import read_json, reading

_COLUMNS = {"row", "shard", "index", "path", "split", "label", "group"}

Format = TypeVar("Format", bound=AnyFormat)


class Dataset(Generic[Format]):
    """What `prepare` or `clips` wrote: `dataset.json`, `manifest.parquet` and, for each field, `<field>-00000.npy`, ….

    The manifest's columns: row, shard, index (within the shard), path (as the source gives it, escaped), split, label
    (−1: none), group (what a split never divides: rows of the same group show the same thing), and whatever else is
    known of the kind of data. Splits: `pool` (pretraining only, labels unused), `train` and `test`. Without a `pool`,
    pretraining sees `train`.

    In memory are the columns that were asked for, and nothing else of the examples.
    """

    def __init__(self, folder: Path = paths.PREPARED, *, labels: bool = True) -> None:
        """Without `labels`, the examples are as if nobody had labelled them. Raises `ValueError` where there is no
        prepared data, or such as an earlier version wrote."""
        stage, file = _stage(folder), folder / "dataset.json"
        facts = read_json(file) if file.exists() else {}
        if "kind" not in facts:
            if facts or (folder / "clips.json").exists():
                raise ValueError(f"{folder}: made by an earlier version of sslflow; run `dvc repro {stage}`")
            raise ValueError(f"{folder}: nothing prepared here; run `dvc repro {stage}` first")
        self.folder = folder
        with reading(file):
            self.format: Format = format_of(facts)
            self.classes: list[str] = facts["classes"] if labels else []
            self.truth: Truth | None = Truth(folder, facts["truth"]) if labels and "truth" in facts else None
            """Where things are in the images that have been annotated, if any have."""
            self.stored = Stored(**facts["stored"]) if "stored" in facts else None
            """Of images that are kept as JPEG: in `images-00000.jpegs`, …, and not in arrays."""
            self.beside: dict[str, dict[str, Any]] = facts.get("beside", {})
            """Fields of examples besides those of their format, such as `captions`, and what is known of each."""
        # Open from now on, so that all columns are of the same manifest.
        with reading(folder / "manifest.parquet"):
            self._manifest = pq.ParquetFile(folder / "manifest.parquet")
            if missing := _COLUMNS - set(self._manifest.schema_arrow.names):
                raise KeyError(", ".join(sorted(missing)))
        self._size = self._manifest.metadata.num_rows
        self._columns: dict[str, pa.ChunkedArray] = {}
        if not labels:
            self._columns["label"] = pa.chunked_array([pa.array(np.full(self._size, NO_LABEL), pa.int64())])
        self._shard = lru_cache(OPEN_SHARDS)(self._opened)

    def __len__(self) -> int:
        return self._size

    def column(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """A column of the manifest, of all rows or of those given, in that order, `(n,)`. Text is `object`."""
        column = self._column(name)
        return (column if rows is None else column.take(pa.array(rows))).to_numpy()

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index of each row, `(n,)` int64; −1 where there is none."""
        return self.column("label")

    @cached_property
    def groups(self) -> np.ndarray:
        """Number of each row's group, `(n,)` int64, in the groups' order: no group is in both `train` and `test`."""
        ranks = pc.rank(self._column("group"), tiebreaker="dense")  # pyright: ignore[reportAttributeAccessIssue]
        return ranks.to_numpy().astype(np.int64) - 1

    @property
    def labelled(self) -> bool:
        """Whether there are labelled examples to train a probe on and to test it on."""
        return all(len(self.labelled_rows(split)) for split in (TRAIN, TEST))

    def rows(self, split: str) -> np.ndarray:
        """Rows of one split, in manifest order."""
        here = pc.equal(self._column("split"), split)  # pyright: ignore[reportAttributeAccessIssue]
        return np.flatnonzero(here.to_numpy())

    def labelled_rows(self, split: str) -> np.ndarray:
        """Rows of one split that have a label, in manifest order."""
        rows = self.rows(split)
        return rows[self.labels[rows] != NO_LABEL]

    def annotated_rows(self, split: str, kind: str) -> np.ndarray:
        """Rows of one split of whose images `mask`, `boxes` or `depth` are known, in manifest order."""
        if kind == "depth":
            rows = self.rows(split)
            return rows[self.column(kind, rows) > 0] if kind in self.beside else rows[:0]
        return np.intersect1d(self.rows(split), self.truth.rows(kind)) if self.truth else np.empty(0, np.int64)

    @property
    def pretraining_rows(self) -> np.ndarray:
        """Rows that pretraining may see: the pool, or else the training split; never a test example."""
        pool = self.rows(POOL)
        return pool if len(pool) else self.rows(TRAIN)

    def read(self, rows: np.ndarray | Tensor, frames: Tensor | None = None) -> Fields:
        """The examples of the rows given, in that order. Of clips only some frames, where `frames` says of each which,
        int64 `(n, k)`; these numbers are then the field `frame_numbers`."""
        return self._read(rows, frames=frames)

    def for_views(self, resized: bool, device: torch.device) -> Readable:
        """The same examples for views; for those that resize, images that are kept as JPEG as large as they are kept.
        These are decoded on the device where it is a GPU."""
        return _ForViews(self, resized, device) if self.stored else self

    def _read(
        self,
        rows: np.ndarray | Tensor,
        larger: bool = False,
        device: torch.device | None = None,
        frames: Tensor | None = None,
    ) -> Fields:
        """`larger`: images as large as they are kept."""
        rows = np.asarray(rows)
        shard, index = self._places[0][rows], self._places[1][rows]
        names = [name for name in self.format.fields if not self.stored or name != "images"]
        parts = {} if frames is None else {"frames": frames.numpy()}
        found = {name: self._field(name, shard, index, parts.get(name)) for name in (*names, *self.beside)}
        if frames is not None:
            found["frame_numbers"] = parts["frames"]
        if self.format.grouped:
            found["groups"] = self.groups[rows]
        fields = {name: torch.from_numpy(values) for name, values in found.items()}
        if self._encoded:
            fields["images"] = self._encoded.read(rows, 0 if larger else self._encoded.size, device)
        return Fields(**fields)

    @cached_property
    def _encoded(self) -> EncodedImages | None:
        if not self.stored or not isinstance(self.format, ImageFormat):
            return None
        columns = {name: self.column(name) for name in COLUMNS}
        return EncodedImages(self.folder, self.stored, self.format, columns)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return self.column("shard"), self.column("index")

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self._columns:
            if name not in self._manifest.schema_arrow.names:
                raise KeyError(name)
            with reading(self.folder / "manifest.parquet"):
                self._columns[name] = self._manifest.read([name])[name]
        return self._columns[name]

    def _field(self, name: str, shard: np.ndarray, index: np.ndarray, parts: np.ndarray | None) -> np.ndarray:
        """A field of the examples at these places; `parts`: of each only these, `(n, k)`."""
        first = self._shard(name, 0)
        shape = first.shape[1:] if parts is None else (parts.shape[1], *first.shape[2:])
        values = np.empty((len(index), *shape), first.dtype)
        for number in np.unique(shard).tolist():
            here = shard == number
            stored = self._shard(name, number)
            values[here] = stored[index[here]] if parts is None else stored[index[here, None], parts[here]]
        return values

    def _opened(self, name: str, number: int) -> np.ndarray:
        file = self.folder / f"{name}-{number:05d}.npy"
        require_whole(file)
        with reading(file):
            return np.lib.format.open_memmap(file, mode="r")


class _ForViews:
    """What `Dataset.for_views` gives."""

    def __init__(self, dataset: Dataset[Any], resized: bool, device: torch.device) -> None:
        self.format, self._dataset, self._resized, self._device = dataset.format, dataset, resized, device

    @property
    def pretraining_rows(self) -> np.ndarray:
        return self._dataset.pretraining_rows

    def read(self, rows: np.ndarray) -> Fields:
        return self._dataset._read(rows, self._resized, self._device)


def _stage(folder: Path) -> str:
    """The stage that fills the folder."""
    filled = {paths.clips(""): "clips", paths.domains(""): "domains"}
    return next((stage for place, stage in filled.items() if place in (folder, *folder.parents)), "prepare")
