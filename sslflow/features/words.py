"""Words as features, without their order: what any encoder of text has to beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.formats import TextFormat
from sslflow.data.tokens import SPECIAL

WORDS = 2048
"""Words, the most frequent ones, that are counted: with all of them a classifier takes longer than pretraining."""
_BATCH = 4096


def words(dataset: Dataset[TextFormat], rows: np.ndarray, device: torch.device) -> Tensor:
    """Bag of words of the rows given, `tf_idf` of the `WORDS` most frequent words, float32 `(rows, dim)` on the
    device."""
    counts = np.asarray(dataset.format.counts)[len(SPECIAL) :]
    kept = torch.from_numpy(np.sort(np.argsort(-counts, kind="stable")[:WORDS]) + len(SPECIAL))
    rarity = rarity_of(dataset)
    parts = [tf_idf(dataset.read(part)["tokens"], rarity)[:, kept] for part in _chunks(rows)]
    found = torch.cat(parts) if parts else torch.zeros(0, len(kept))
    return torch.nn.functional.normalize(found, dim=1).to(device)


def rarity_of(dataset: Dataset[TextFormat]) -> Tensor:
    """ln((1 + n) / (1 + passages with the word)) + 1 of each token, over the n passages to pretrain on, float32
    `(vocabulary,)`; 0 of the special ones."""
    rows = dataset.pretraining_rows
    found = torch.zeros(dataset.format.vocabulary)
    for part in _chunks(rows):
        found += (_counted(dataset.read(part)["tokens"], len(found)) > 0).sum(0)
    rarity = torch.log((1 + len(rows)) / (1 + found)) + 1
    rarity[: len(SPECIAL)] = 0
    return rarity


def tf_idf(tokens: Tensor, rarity: Tensor) -> Tensor:
    """(1 + ln count) · rarity of each token in passages `(n, length)`, each row of length 1, float32
    `(n, vocabulary)`."""
    counts = _counted(tokens, len(rarity))
    weighted = torch.where(counts > 0, 1 + counts.clamp_min(1).log(), 0.0) * rarity
    return torch.nn.functional.normalize(weighted, dim=1)


def _counted(tokens: Tensor, vocabulary: int) -> Tensor:
    counts = torch.zeros(len(tokens), vocabulary)
    return counts.scatter_add_(1, tokens.long(), torch.ones(tokens.shape))


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
