"""Text as tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sslflow.data.tokens import BETWEEN, FILE, FIRST, PAD, SPECIAL, decoded, encoded, load_tokenizer
from sslflow.ingest.tokenizing import train_tokenizer


def test_what_looks_like_a_special_token_in_a_text_is_none(tmp_path: Path) -> None:
    texts = ["a [PAD] red [MASK] bus", "[SEP] [CLS] b", "red [UNK] bus"]
    trained = train_tokenizer(texts, 60)
    trained.save(str(tmp_path / FILE))
    tokens = encoded(load_tokenizer(tmp_path), texts, 40)
    assert np.array_equal(encoded(trained, texts, 40), tokens)
    for row in tokens:
        inner = row[1 : (row != PAD).sum() - 1]
        assert (inner >= len(SPECIAL)).all()
        assert (row[0], row[len(inner) + 1]) == (FIRST, BETWEEN)
    ids = [one.ids for one in trained.encode_batch(texts, add_special_tokens=False)]
    assert [len(one) + 2 for one in ids] == (tokens != PAD).sum(axis=1).tolist()
    assert [text.replace(" ", "") for text in decoded(trained, tokens)] == [
        text.lower().replace(" ", "") for text in texts
    ]
