"""All that is asked of a row: hidden words, what follows, and words themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.formats import TextFormat
from sslflow.data.splits import TEST
from sslflow.data.tokens import SPECIAL
from sslflow.examination.language import likeness
from sslflow.examination.language.following import WRONG, answers, questions
from sslflow.examination.language.hidden import perplexity
from sslflow.examination.language.rows import Row, vocabulary
from sslflow.runtime.rng import permutation
from sslflow.settings.params import Count

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHOWN_PASSAGES, SHOWN_WORDS = 6, 8
OTHERS = ("perplexity", "words", *WRONG, "by_likeness", "pairs", "following_accuracy")
"""Names of numbers that are no scores of a set of words."""
_COMMON, _RARE = 50, 1500
"""Places among the most frequent words, between which words are chosen whose nearest are shown."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """`passages`: at most so many test passages are asked about. `similarity`: sets of pairs of words and how alike
    people say they are, `wordsim353` and `simlex999` where the package gensim is installed, or files of two words and a
    number a line; `analogies`, likewise `analogies`, or a file of four words a line; '' for none, of both."""

    passages: Count = 500
    similarity: tuple[str, ...] = ("wordsim353", "simlex999")
    analogies: str = "analogies"

    def __post_init__(self) -> None:
        """Raises `ValueError` for sets whose scores would have the name of another number."""
        taken = set(OTHERS)
        for setting, names in (("similarity", self.similarity), ("analogies", (self.analogies,))):
            for name in filter(None, names):
                title = title_of(name)
                own = {title, f"{title}_asked", f"{title}_unknown"}
                if both := own & taken:
                    raise ValueError(
                        f"{setting}: {name}: its score would be called {title}, and {min(both)} is another number "
                        "already: rename the file"
                    )
                taken |= own


def title_of(name: str) -> str:
    """What the score of a set of words is called: a file by its name, without its folder and ending."""
    return name.rpartition("/")[2].partition(".")[0]


@dataclass
class Examined:
    """What was found."""

    passages: dict[str, Any] = field(default_factory=dict)
    """Columns of the table of passages."""
    metrics: dict[str, float] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def examine(row: Row, dataset: Dataset[TextFormat], tokenizer: Tokenizer, asked: Asked, seed: int) -> Examined:
    """Ask all that the row can tell; the same questions for the same seed. Raises `ValueError` for a set of words that
    there is not."""
    found = Examined()
    rows = dataset.rows(TEST)
    rows = np.sort(rows[permutation(len(rows), seed, "passages").numpy()[: asked.passages]])
    own = questions(dataset, asked.passages, seed)
    both = np.union1d(rows, own.rows)
    tokens = dataset.read(rows)["tokens"].long()
    number = np.searchsorted(both, rows)
    count, logs = np.zeros(len(both), np.int64), np.full(len(both), np.nan)
    count[number] = (tokens >= len(SPECIAL)).sum(1).numpy()
    if row.hidden:
        each, best = row.hidden(tokens)
        logs[number] = each.sum(1)
        found.metrics |= {"perplexity": perplexity(each, tokens.numpy()), "words": float(count.sum())}
        some = slice(0, None, max(1, len(tokens) // SHOWN_PASSAGES))
        found.shown["passages"] = _shown(
            tokens.numpy()[some], each[some], None if best is None else best[some], tokenizer
        )
    told = {name: np.full(len(both), np.nan) for name in WRONG}
    if row.follows and len(own.rows):
        for name, won in answers(own, row.follows).items():
            told[name][np.searchsorted(both, own.rows)] = won
            if not np.isnan(won).all():
                found.metrics[name] = float(np.nanmean(won))
        found.metrics |= {"by_likeness": float(not row.decides), "pairs": float(len(own.rows))}
        if row.decides and (own.other >= 0).any():
            found.metrics["following_accuracy"] = _decided(own, row)
    groups = dataset.groups[both]
    found.passages = {"row": both, "group": groups, "words": count, "log_likelihood": _nulls(logs)}
    found.passages |= {name: _nulls(values) for name, values in told.items()}
    if row.vectors is not None:
        _ask_of_words(row.vectors, dataset, tokenizer, asked, found)
    return found


def _decided(own: Any, row: Row) -> float:
    """Share of right and of other documents' passages, as many of each, that are taken for what they are."""
    assert row.follows is not None
    some = own.other >= 0
    right, wrong = (
        row.follows(own.first[some], own.second[some]),
        row.follows(own.first[some], own.second[own.other[some]]),
    )
    return float(torch.cat([right > 0, wrong <= 0]).float().mean())


def _ask_of_words(
    vectors: np.ndarray, dataset: Dataset[TextFormat], tokenizer: Tokenizer, asked: Asked, found: Examined
) -> None:
    numbers = vocabulary(tokenizer.get_vocab())

    def spelled(word: str) -> str:
        return word if word in numbers else word.lower()

    for name in filter(None, (*asked.similarity, asked.analogies)):
        file, title = likeness.find_set(name), title_of(name)
        if file is None:
            found.notes.append(f"without {name}: the package gensim, which brings it along, is not installed")
        elif name == asked.analogies:
            four = [tuple(map(spelled, words)) for words in likeness.read_analogies(file)]
            known, right = likeness.analogies(vectors, numbers, four)  # pyright: ignore[reportArgumentType]
            found.metrics |= {
                title: float(right.mean()) if len(right) else 0.0,
                f"{title}_asked": float(known.sum()),
                f"{title}_unknown": float(1 - known.mean()),
            }
        else:
            pairs = likeness.read_pairs(file)
            pairs = likeness.Pairs([*map(spelled, pairs.first)], [*map(spelled, pairs.second)], pairs.people)
            known, cosines = likeness.likeness(vectors, numbers, pairs)
            found.metrics |= {
                title: likeness.rank_correlation(pairs.people[known], cosines),
                f"{title}_asked": float(known.sum()),
                f"{title}_unknown": float(1 - known.mean()),
            }
    counts = np.asarray(dataset.format.counts)
    frequent = sorted((word for word in numbers if len(word) > 3), key=lambda word: -counts[numbers[word]])
    kept = [word for word in numbers if counts[numbers[word]] >= 5]
    chosen = [word for word in frequent[_COMMON:_RARE] if counts[numbers[word]] >= 5]
    chosen = chosen[:: max(1, len(chosen) // SHOWN_WORDS)][:SHOWN_WORDS]
    if chosen:
        found.shown["nearest"] = likeness.nearest(vectors, {word: numbers[word] for word in kept}, chosen)


def _shown(
    tokens: np.ndarray, logs: np.ndarray, best: np.ndarray | None, tokenizer: Tokenizer
) -> list[list[dict[str, Any]]]:
    """Of a few passages `(n, length)` each word, how likely it is when it is hidden, and the likeliest in its place."""

    def name(number: int) -> str:
        return str(tokenizer.id_to_token(int(number))).replace("\u2581", " ").strip()

    found = []
    for row, ids in enumerate(tokens[:SHOWN_PASSAGES]):
        there = [(at, number) for at, number in enumerate(ids) if number >= len(SPECIAL)]
        told = {} if best is None else {at: {"best": name(best[row, at])} for at, _ in there}
        found.append(
            [{"word": name(number), "likely": math.exp(logs[row, at]), **told.get(at, {})} for at, number in there]
        )
    return found


def _nulls(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
