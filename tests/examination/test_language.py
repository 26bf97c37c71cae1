"""What is asked of language: counts against slow references, hidden words, what follows, and words themselves."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sslflow.data.tokens import BETWEEN, FIRST, MASK
from sslflow.examination.language import likeness
from sslflow.examination.language.exam import Asked, examine
from sslflow.examination.language.following import Questions, answers
from sslflow.examination.language.hidden import hidden_words, perplexity
from sslflow.examination.language.ngrams import Trigram, Unigram
from sslflow.examination.language.rows import of_method, vocabulary
from sslflow.methods.text.masked_lm import MaskedLM
from tests.cases import text_case
from tests.text_fixtures import MemoryText


@pytest.fixture(scope="module")
def data() -> MemoryText:
    return MemoryText()


def kneser_ney(tokens: np.ndarray, size: int, two: int, one: int, word: int) -> float:
    """By dictionaries, as in the books."""
    three: Counter[tuple[int, ...]] = Counter()
    for row in tokens.tolist():
        own = [row[0], *(token for token in row if token)]
        three.update(zip(own, own[1:], own[2:], strict=False))
    pairs = Counter(key[1:] for key in three)
    singles = Counter(key[1:] for key in pairs)

    def discount(counts: Counter) -> float:
        once, twice = (sum(value == number for value in counts.values()) for number in (1, 2))
        return once / (once + 2 * twice)

    def level(counts: Counter, context: tuple[int, ...], shorter: float) -> float:
        after = {key[-1]: value for key, value in counts.items() if key[:-1] == context}
        if not after:
            return shorter
        total, off = sum(after.values()), discount(counts)
        return max(after.get(word, 0) - off, 0) / total + off * len(after) / total * shorter

    return level(three, (two, one), level(pairs, (one,), level(singles, (), 1 / size)))


def test_trigram_is_that_of_dictionaries_and_sums_to_one(data: MemoryText) -> None:
    size = data.format.vocabulary
    model = Trigram(data.tokens[:40], size)
    row = data.tokens[50]
    for at in range(1, 6):
        two, one, word = row[max(0, at - 2)], row[at - 1], row[at]
        found = model.probability(*(np.asarray([value]) for value in (two, one, word)))[0]
        assert found == pytest.approx(kneser_ney(data.tokens[:40], size, two, one, word), rel=1e-9)
    for two, one in ((FIRST, FIRST), (row[1], row[2]), (299, 298)):
        every = np.arange(size)
        assert model.probability(np.full(size, two), np.full(size, one), every).sum() == pytest.approx(1)


def test_counts_tell_seen_text_better_than_unseen(data: MemoryText) -> None:
    size, seen, unseen = data.format.vocabulary, data.tokens[:40], data.tokens[40:]
    models = {kind: kind(seen, size) for kind in (Unigram, Trigram)}
    found = {
        kind: [perplexity(model.log_likelihood(part), part) for part in (seen, unseen)]
        for kind, model in models.items()
    }
    assert found[Trigram][0] < 10 < found[Trigram][1] < found[Unigram][1] < size
    assert (models[Trigram].log_likelihood(seen)[seen < 5] == 0).all()
    uniform = np.where(seen >= 5, -math.log(17), 0.0)
    assert perplexity(uniform, seen) == pytest.approx(17)


@torch.no_grad()
def test_hidden_words_are_those_of_a_loop_one_at_a_time() -> None:
    case = text_case("masked_lm", units="pieces")
    form, method = case.data.format, case.method.eval()
    assert isinstance(method, MaskedLM)
    words = method.words
    tokens = torch.from_numpy(case.data.tokens[:3]).long()
    logs, best = hidden_words(words, tokens, form)
    for row in range(3):
        for at, token in enumerate(tokens[row].tolist()):
            if token < 5:
                assert logs[row, at] == best[row, at] == 0
                continue
            seen = tokens[row].clone()
            seen[at] = MASK
            for after in range(at + 1, len(seen)):
                if int(tokens[row, after]) not in form.inside:
                    break
                seen[after] = MASK
            asked = torch.arange(len(seen)) == at
            logits = words(seen[None], asked[None])[0]
            assert logs[row, at] == pytest.approx(float(logits.log_softmax(0)[token]), abs=1e-4)
            assert best[row, at] == int(logits.argmax())


def test_what_follows_is_won_lost_or_even() -> None:
    first, second = torch.tensor([[1], [2], [3]]), torch.tensor([[11], [12], [13]])
    asked = Questions(np.arange(3), first, second, torch.tensor([1, 2, -1]), torch.tensor([-1, 0, 1]))

    def knows(one: Tensor, two: Tensor) -> Tensor:
        return (two - one == 10).float()[:, 0]

    found = answers(asked, knows)
    assert found["order"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(found["other"], [1, 1, np.nan])
    assert np.nanmean(answers(asked, lambda one, two: torch.zeros(len(one)))["other"]) == 0.5
    assert np.nanmean(answers(asked, lambda one, two: -knows(one, two))["same"]) == 0


@pytest.mark.parametrize("documents", [1, 2])
def test_a_single_document_to_test_on_has_no_other_to_tell_from(data: MemoryText, documents: int) -> None:
    """Nothing is a number then that is none: metrics must be finite."""
    case = text_case("bert")
    chosen = np.flatnonzero(data.groups <= documents)
    dataset: Any = SimpleNamespace(rows=lambda _: chosen, read=data.read, groups=data.groups, format=data.format)
    row = replace(of_method(case.method.eval(), data.format, torch.device("cpu")), hidden=None, vectors=None)
    found = examine(row, dataset, None, Asked(), 0)  # pyright: ignore[reportArgumentType]
    assert found.metrics["pairs"] == 3 * documents
    assert all(map(math.isfinite, found.metrics.values()))
    assert ("other" in found.metrics) == ("following_accuracy" in found.metrics) == (documents > 1)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"similarity": ("own/pairs.tsv",)}, "own/pairs.tsv: its score would be called pairs, and pairs is another"),
        ({"similarity": ("a/mine.tsv", "b/mine.csv")}, "similarity: b/mine.csv: .* mine is another number already"),
        ({"similarity": ("mine.tsv", "mine_asked.tsv")}, "mine_asked is another number already"),
        ({"similarity": (), "analogies": "words.txt"}, "analogies: words.txt: .* rename the file"),
    ],
)
def test_scores_of_own_sets_take_no_other_numbers_name(sets: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Asked(**sets)
    assert Asked(similarity=("own/mine.tsv",), analogies="").analogies == ""


def test_likeness_of_words_and_analogies(tmp_path: Path) -> None:
    numbers = {"man": 5, "woman": 6, "king": 7, "queen": 8, "stone": 9}
    vectors = np.zeros((12, 3))
    vectors[5:10] = [[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1], [-1, 0, 0]]
    asked = [
        ("man", "woman", "king", "queen"),
        ("man", "king", "woman", "queen"),
        ("man", "woman", "king", "stone"),
        ("man", "woman", "duke", "x"),
    ]
    known, right = likeness.analogies(vectors, numbers, asked)
    assert known.tolist() == [True, True, True, False]
    assert right.tolist() == [True, True, False]
    assert not likeness.analogies(np.ones((12, 3)), numbers, asked)[1].any()
    (tmp_path / "pairs.tsv").write_text(
        "# people\nword 1\tword 2\tmean\nman\tking\t8\nman\tstone\t1\nking\tqueen\t9.5\nman\tduke\t4\n"
    )
    pairs = likeness.read_pairs(tmp_path / "pairs.tsv")
    known, cosines = likeness.likeness(vectors, numbers, pairs)
    assert known.tolist() == [True, True, True, False]
    np.testing.assert_allclose(cosines, [2**-0.5, -1, 2 / 6**0.5])
    assert likeness.rank_correlation(pairs.people[known], cosines) == pytest.approx(1)
    assert likeness.rank_correlation(np.arange(3.0), np.ones(3)) == 0
    assert likeness.nearest(vectors, numbers, ["king"], 2) == {"king": ["queen", "man"]}


def test_sets_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file nothing\.tsv"):
        likeness.find_set("nothing.tsv")
    file = tmp_path / "a.tsv"
    file.write_text("only words\n")
    with pytest.raises(ValueError, match="two words and a number"):
        likeness.read_pairs(file)
    file.write_bytes("häuser\thäuser\t1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        likeness.read_pairs(file)
    file.write_text("only words\n")
    with pytest.raises(ValueError, match="four words"):
        likeness.read_analogies(file)


def test_whole_words_alone_are_asked_about() -> None:
    assert vocabulary({"[CLS]": FIRST, "[SEP]": BETWEEN, "king": 5, ",": 6, "dom": 7}) == {"king": 5, "dom": 7}
    assert vocabulary({"[CLS]": FIRST, "\u2581king": 5, "dom": 7, "\u2581,": 8}) == {"king": 5}
