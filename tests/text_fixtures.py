"""The beginning of the sample of text, as data in memory, and small corpora on the disk."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from sslflow.data.fields import Fields
from sslflow.data.formats import TextFormat
from sslflow.data.tokens import PAD, encoded
from sslflow.ingest.tokenizing import inside_words, train_tokenizer
from tests.conftest import ROOT

BIBLE = ROOT / "data" / "samples" / "bible" / "verses.parquet"


@cache
def verses() -> list[dict]:
    """Those of Genesis, of 50 chapters."""
    return pq.read_table(BIBLE).slice(0, 1533).to_pylist()


class MemoryText:
    """What a `Dataset` of text offers: the first verses of 16 chapters."""

    def __init__(self, count: int = 64, length: int = 20, units: str = "words", vocabulary: int = 300) -> None:
        rows = [row for row in verses() if row["verse"] <= 4 and row["chapter"] <= 16][:count]
        texts, self.groups = [row["text"] for row in rows], np.asarray([row["chapter"] for row in rows])
        tokenizer = train_tokenizer(texts, vocabulary, units=units)  # pyright: ignore[reportArgumentType]
        self.tokens = encoded(tokenizer, texts, length)
        self.following = np.full_like(self.tokens, PAD)
        same = self.groups[:-1] == self.groups[1:]
        self.following[:-1][same] = self.tokens[1:][same]
        size = tokenizer.get_vocab_size()
        counts = np.bincount(self.tokens[self.tokens != PAD], minlength=size)
        self.format = TextFormat(length, size, tuple(counts.tolist()), inside_words(tokenizer))

    @property
    def pretraining_rows(self) -> np.ndarray:
        return np.arange(len(self.tokens))

    def read(self, rows: np.ndarray) -> Fields:
        read = (torch.from_numpy(values[rows].copy()) for values in (self.tokens, self.following, self.groups))
        return Fields(**dict(zip(("tokens", "following", "groups"), read, strict=True)))


def write_corpus(folder: Path, chapters: Iterable[int] = range(1, 31)) -> Path:
    """Chapters of the sample as `.txt` files, a verse a paragraph, in two folders."""
    for row in verses():
        if row["chapter"] in chapters:
            place = folder / ("early" if row["chapter"] < 12 else "late") / f"{row['chapter']:02d}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("a", encoding="utf-8") as file:
                file.write(f"{row['text']}\n\n")
    return folder
