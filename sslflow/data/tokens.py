"""Text as numbers: the tokens that mean something of their own, and the tokenizer that prepared data is kept with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sslflow.runtime.files import reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNKNOWN, FIRST, BETWEEN, MASK = range(5)
"""Numbers of the special tokens, the same in every vocabulary: padding; what is in no vocabulary; before a text; after
each of its parts; in place of a hidden token."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILE = "tokenizer.json"
"""In a folder of prepared data: the tokenizer, as the package `tokenizers` saves it."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of prepared data. Raises `ValueError` where there is none."""
    from tokenizers import Tokenizer  # takes long to load, and most data needs none

    file = folder / FILE
    if not file.exists():
        raise ValueError(f"{file}: there is no tokenizer here; prepare data that has text")
    with reading(file):
        return Tokenizer.from_file(str(file))


def encoded(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> np.ndarray:
    """Texts as tokens, int32 `(len(texts), length)`: `[CLS]`, the text, `[SEP]`, padding; cut where they are longer."""
    tokenizer.encode_special_tokens = True  # what looks like one in a text is text; its file doesn't say so
    found = np.full((len(texts), length), PAD, np.int32)
    for row, one in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False)):
        kept = one.ids[: length - 2]
        found[row, : len(kept) + 2] = [FIRST, *kept, BETWEEN]
    return found


def decoded(tokenizer: Tokenizer, tokens: np.ndarray) -> list[str]:
    """The texts of tokens `(n, length)`; of the special ones `[MASK]` and `[UNK]` alone are written."""
    shown = [[int(token) for token in row if token in (MASK, UNKNOWN) or token >= len(SPECIAL)] for row in tokens]
    return tokenizer.decode_batch(shown, skip_special_tokens=False)
