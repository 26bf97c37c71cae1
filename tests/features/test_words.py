"""Words as features, beside scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from sslflow.features import words as module
from sslflow.features.words import rarity_of, tf_idf, words
from tests.text_fixtures import MemoryText


def test_tf_idf_is_that_of_scikit_learn(monkeypatch: Any) -> None:
    data: Any = MemoryText()
    texts = [" ".join(f"w{token}" for token in row if token >= 5) for row in data.tokens]
    theirs = TfidfVectorizer(sublinear_tf=True)
    wanted = theirs.fit_transform(texts).toarray()
    columns = [int(name[1:]) for name in theirs.get_feature_names_out()]
    found = tf_idf(torch.from_numpy(data.tokens), rarity_of(data))
    np.testing.assert_allclose(found[:, columns], wanted, atol=1e-5)
    assert not found[:, :5].any()
    rows, cpu = np.asarray([3, 1]), torch.device("cpu")
    monkeypatch.setattr(module, "WORDS", 20)
    some = words(data, rows, cpu)
    assert some.shape == (2, 20)
    frequent = np.sort(np.argsort(-np.asarray(data.format.counts)[5:], kind="stable")[:20]) + 5
    torch.testing.assert_close(some, torch.nn.functional.normalize(found[rows][:, frequent], dim=1))
