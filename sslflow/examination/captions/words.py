"""Captions as sets of words, and how much of them two captions share."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"\w+")
CHUNK = 2_000_000
"""Numbers that a comparison holds at a time, besides its result."""


def words_of(text: str) -> frozenset[str]:
    """The words of a text, in small letters."""
    return frozenset(WORD.findall(text.casefold()))


def word_f1(told: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """F1 of the words of each text that was told, against those of each that is known, float32
    `(len(told), len(known))`: 2 · words in both / (words of one + words of the other), 0 where neither has any."""
    ours, theirs = [words_of(text) for text in told], [words_of(text) for text in known]
    number = {word: place for place, word in enumerate(sorted(frozenset().union(*ours) & frozenset().union(*theirs)))}
    wide = max(1, len(number))
    counts = np.array([len(one) for one in ours], np.float32), np.array([len(one) for one in theirs], np.float32)
    right = _table(theirs, number, wide).T
    found = np.empty((len(told), len(known)), np.float32)
    for start in range(0, len(told), step := max(1, CHUNK // wide)):
        both = _table(ours[start : start + step], number, wide) @ right
        every = counts[0][start : start + step, None] + counts[1][None]
        found[start : start + step] = 2 * both / np.maximum(every, 1)
    return found


def _table(texts: Sequence[frozenset[str]], number: dict[str, int], wide: int) -> np.ndarray:
    """Whether each of the texts has each of the words, 0 or 1, float32 `(len(texts), wide)`."""
    table = np.zeros((len(texts), wide), np.float32)
    for row, text in enumerate(texts):
        table[row, [number[word] for word in text if word in number]] = 1
    return table
