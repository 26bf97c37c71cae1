"""How likely words are by those before them, counted: what a language model has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslflow.data.tokens import PAD, SPECIAL


@dataclass(frozen=True)
class Counted:
    """Different keys, sorted, and how often each was there."""

    keys: np.ndarray
    counts: np.ndarray

    def of(self, keys: np.ndarray) -> np.ndarray:
        """The counts of other keys, float64; 0 of those that were never there."""
        if not len(self.keys):
            return np.zeros(len(keys))
        at = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.counts[at], 0).astype(np.float64)

    @property
    def discount(self) -> float:
        """What is taken off each count for keys that were never there: n1 / (n1 + 2 n2)."""
        once, twice = ((self.counts == number).sum() for number in (1, 2))
        return float(once / (once + 2 * twice)) if once else 0.5


def counted(keys: np.ndarray, counts: np.ndarray | None = None) -> Counted:
    """How often each key is there, or the sum of the counts that go with it."""
    found, number = np.unique(keys, return_inverse=True)
    return Counted(found, np.bincount(number, counts, len(found)))


class Unigram:
    """The share of each word in the text, with one more of each."""

    def __init__(self, tokens: np.ndarray, vocabulary: int) -> None:
        words = tokens[tokens >= len(SPECIAL)]
        counts = np.bincount(words, minlength=vocabulary)[:vocabulary] + 1.0
        counts[: len(SPECIAL)] = 0
        self._logs = np.log(np.maximum(counts, 1e-300) / counts.sum())

    def log_likelihood(self, tokens: np.ndarray) -> np.ndarray:
        """Of each token of passages `(n, length)` the logarithm of its probability, float64; 0 of the special ones."""
        return np.where(tokens >= len(SPECIAL), self._logs[tokens], 0.0)


class Trigram:
    """How likely a word is after the two before it, by interpolated Kneser-Ney smoothing (Chen and Goodman, 1999):
    what wasn't seen is told from the word before it, and that from how many different words a word follows. The text's
    beginning counts as two words, its end as one."""

    def __init__(self, tokens: np.ndarray, vocabulary: int) -> None:
        """`tokens`: the passages to count, `(n, length)`."""
        self.vocabulary = vocabulary
        two, one, word = (each[tokens[:, 1:] != PAD] for each in _contexts(tokens))
        self.three = counted(self._key(two, one, word))
        last = self.three.keys % (vocabulary * vocabulary)
        self.two = counted(last)  # of a pair: how many different words stand before it
        self.one = counted(self.two.keys % vocabulary)
        self.after_two, self.kinds_after_two = _after(self.three, vocabulary)
        self.after_one, self.kinds_after_one = _after(self.two, vocabulary)

    def log_likelihood(self, tokens: np.ndarray) -> np.ndarray:
        """As of `Unigram`."""
        two, one, word = _contexts(tokens)
        found = np.zeros(tokens.shape)
        asked = tokens[:, 1:] >= len(SPECIAL)
        found[:, 1:][asked] = np.log(self.probability(two[asked], one[asked], word[asked]))
        return found

    def probability(self, two: np.ndarray, one: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Of each `word` after `two`, `one`; all int `(n,)`."""
        total = self.one.counts.sum()
        likely = _discounted(self.one, word, total, len(self.one.keys), 1 / self.vocabulary)
        pair = self._key(0, one, word)
        likely = _discounted(self.two, pair, self.after_one.of(one), self.kinds_after_one.of(one), likely)
        context = self._key(0, two, one)
        return _discounted(
            self.three, self._key(two, one, word), self.after_two.of(context), self.kinds_after_two.of(context), likely
        )

    def _key(self, two: np.ndarray | int, one: np.ndarray, word: np.ndarray) -> np.ndarray:
        return (np.int64(two) * self.vocabulary + one.astype(np.int64)) * self.vocabulary + word


def _contexts(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The second word before each token but the first, the word before it, and itself; `(n, length − 1)` each."""
    before = np.concatenate([tokens[:, :1], tokens[:, :-2]], axis=1)
    return before, tokens[:, :-1], tokens[:, 1:]


def _after(grams: Counted, vocabulary: int) -> tuple[Counted, Counted]:
    """Of each context how much follows it, and how many different words do."""
    contexts = grams.keys // vocabulary
    return counted(contexts, grams.counts), counted(contexts)


def _discounted(
    grams: Counted, keys: np.ndarray, total: np.ndarray | float, kinds: np.ndarray | int, shorter: np.ndarray | float
) -> np.ndarray:
    """The discounted share of each key in its context's total, and for the rest what a shorter context says."""
    some = np.maximum(total, 1e-300)
    found = np.maximum(grams.of(keys) - grams.discount, 0) / some + grams.discount * kinds / some * shorter
    return np.where(np.asarray(total) > 0, found, shorter)
