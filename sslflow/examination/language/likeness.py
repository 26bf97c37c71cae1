"""Word vectors beside what people say of words: how alike they are, and which goes with which."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IN_GENSIM = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt", "analogies": "questions-words.txt"}
"""Sets that the package gensim brings along, in its test data."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of words, and how alike people say they are."""

    first: list[str]
    second: list[str]
    people: np.ndarray


def find_set(name: str) -> Path | None:
    """The file of a set: of that name, or one that gensim has; None where gensim isn't installed. Raises `ValueError`
    for another name that is no file."""
    if name in IN_GENSIM:
        spec = importlib.util.find_spec("gensim")
        file = Path(spec.origin).parent / "test" / "test_data" / IN_GENSIM[name] if spec and spec.origin else None
        return file if file and file.exists() else None
    if not Path(name).is_file():
        raise ValueError(f"there is no file {name}, and {', '.join(IN_GENSIM)} are the sets that gensim brings along")
    return Path(name)


def read_pairs(file: Path) -> Pairs:
    """Lines of two words and a number, parted by tabs or commas; lines that begin with `#` and titles are passed over.
    Raises `ValueError` where there is no such line."""
    found = []
    for line in _lines(file):
        parts = [part.strip() for part in line.replace(",", "\t").split("\t")]
        if len(parts) >= 3 and not line.startswith("#") and (number := _number(parts[2:])) is not None:
            found.append((parts[0], parts[1], number))
    if not found:
        raise ValueError(f"{file}: expected lines of two words and a number, parted by tabs; found none")
    first, second, people = zip(*found, strict=True)
    return Pairs(list(first), list(second), np.asarray(people))


def read_analogies(file: Path) -> list[tuple[str, str, str, str]]:
    """Lines of four words; those that begin with `:` are titles. Raises `ValueError` where there is no such line."""
    lines = (line.split() for line in _lines(file) if not line.startswith(":"))
    found = [(parts[0], parts[1], parts[2], parts[3]) for parts in lines if len(parts) == 4]
    if not found:
        raise ValueError(f"{file}: expected lines of four words, a is to b as c is to d; found none")
    return found


def likeness(vectors: np.ndarray, numbers: Mapping[str, int], pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Which of the pairs have both words in the vocabulary, bool `(pairs,)`, and the cosines of these."""
    length = _unit(vectors)
    known = np.asarray([a in numbers and b in numbers for a, b in zip(pairs.first, pairs.second, strict=True)])
    kept = [(numbers[a], numbers[b]) for a, b, one in zip(pairs.first, pairs.second, known, strict=True) if one]
    places = np.asarray(kept, np.int64).reshape(-1, 2)
    return known, (length[places[:, 0]] * length[places[:, 1]]).sum(1)


def rank_correlation(people: np.ndarray, cosines: np.ndarray) -> float:
    """Spearman's, of two columns; 0 where either is all the same, or there are fewer than three pairs."""
    from scipy.stats import rankdata  # half a second to load, which no check of settings needs

    if len(people) < 3 or not np.ptp(people) or not np.ptp(cosines):
        return 0.0
    return float(np.corrcoef(rankdata(people), rankdata(cosines))[0, 1])


def analogies(
    vectors: np.ndarray, numbers: Mapping[str, int], asked: list[tuple[str, str, str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Which analogies have all four words in the vocabulary, bool `(asked,)`, and of these, whether d is the word whose
    vector is nearer to b − a + c than any other's but those of a, b and c (3CosAdd). Another word as near: wrong."""
    known = np.asarray([all(word in numbers for word in words) for words in asked])
    length = _unit(vectors)
    there = np.asarray(list(numbers.values()))
    places = np.asarray(
        [[numbers[word] for word in words] for words, one in zip(asked, known, strict=True) if one], np.int64
    ).reshape(-1, 4)
    right = []
    for part in np.array_split(places, max(1, -(-len(places) // 256))):
        a, b, c, d = part.T
        near = (length[b] - length[a] + length[c]) @ length.T
        hidden = np.ones(len(vectors), bool)
        hidden[there] = False
        near[:, hidden] = -np.inf
        every = np.arange(len(part))
        for one in (a, b, c):
            near[every, one] = -np.inf
        own = near[every, d].copy()
        near[every, d] = -np.inf
        right.append(own > near.max(1, initial=-np.inf))
    return known, np.concatenate(right) if right else np.zeros(0, bool)


def nearest(vectors: np.ndarray, numbers: Mapping[str, int], words: list[str], count: int = 8) -> dict[str, list[str]]:
    """Of each word the others whose vectors are most alike, the nearest first."""
    names = list(numbers)
    length = _unit(vectors)[[numbers[name] for name in names]]
    at = [names.index(word) for word in words]
    near = length[at] @ length.T
    near[np.arange(len(at)), at] = -np.inf
    order = np.argsort(-near, axis=1, kind="stable")[:, :count]
    return {word: [names[number] for number in row] for word, row in zip(words, order, strict=True)}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8: a byte at {error.start}; save it as UTF-8") from None


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def _number(parts: list[str]) -> float | None:
    """The first that is a number."""
    for part in parts:
        try:
            return float(part)
        except ValueError:
            continue
    return None
