"""Methods for text: what their views show, and losses against slow references."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.data.formats import TextFormat
from sslflow.data.tokens import BETWEEN, FIRST, MASK, PAD
from sslflow.methods.text.masked_lm import MaskedLM
from sslflow.methods.text.word2vec import (
    MOST,
    Word2Vec,
    cbow_loss,
    neighbours,
    skip_gram_loss,
)
from sslflow.networks.language import Follows, follow_cross_entropy, word_cross_entropy
from sslflow.networks.text import TextEncoder
from sslflow.training.method import Batch
from sslflow.views.text import HiddenWordPairViews, HiddenWordViews, PairViews, WindowViews, joined, shortened
from tests.cases import text_case
from tests.text_fixtures import MemoryText


@pytest.fixture(scope="module")
def data() -> MemoryText:
    return MemoryText()


def many(data: MemoryText, times: int = 40) -> Fields:
    return data.read(np.tile(data.pretraining_rows, times))


# Hidden words


def test_a_share_of_the_words_is_hidden_eight_in_ten_by_mask(data: MemoryText) -> None:
    torch.manual_seed(0)
    fields = many(data)
    seen, answers = HiddenWordViews(data.format)(fields)
    tokens = shortened(fields["tokens"].long())
    asked, words = answers >= 0, tokens >= 5
    assert torch.equal(asked.sum(1), (0.15 * words.sum(1)).round().long().clamp_min(1))
    assert torch.equal(answers[asked], tokens[asked])
    assert torch.equal(seen[~asked], tokens[~asked])
    assert not (asked & ~words).any()
    kinds = (seen[asked] == MASK).float().mean(), (seen[asked] == tokens[asked]).float().mean()
    assert kinds[0] == pytest.approx(0.8, abs=0.02)
    assert kinds[1] == pytest.approx(0.1, abs=0.02)
    assert seen[asked].min() >= MASK
    places = asked.float().sum(0)[1:9] / words.float().sum(0)[1:9]
    assert places.std() < 0.03


def test_whole_words_are_hidden_as_a_whole() -> None:
    data = MemoryText(units="pieces", vocabulary=120)
    assert data.format.inside
    continues = torch.zeros(data.format.vocabulary, dtype=torch.bool)
    continues[list(data.format.inside)] = True

    def torn(whole_words: bool) -> int:
        torch.manual_seed(0)
        fields = many(data, 5)
        asked = HiddenWordViews(data.format, whole_words=whole_words)(fields)[1] >= 0
        tokens = shortened(fields["tokens"].long())
        return int((continues[tokens[:, 1:]] & (asked[:, 1:] != asked[:, :-1])).sum())

    assert torn(True) == 0
    assert torn(False) > 100


def test_cross_entropy_of_hidden_words_is_that_of_a_loop(data: MemoryText) -> None:
    case = text_case("masked_lm")
    batch, method = case.batch(), case.method
    assert isinstance(method, MaskedLM)
    seen, answers = batch.views
    losses, right = [], []
    for row in range(len(seen)):
        found = method.encoder.tokens(seen[row : row + 1])[0]
        for place in range(seen.shape[1]):
            if answers[row, place] >= 0:
                head = method.words.head
                logits = head.layer(found[place]) @ method.encoder.words.weight.T + head.bias
                losses.append(-logits.log_softmax(0)[answers[row, place]])
                right.append(int(logits.argmax()) == int(answers[row, place]))
    told = method.training_step(batch)
    torch.testing.assert_close(told["loss"], torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    assert float(told["accuracy"]) == pytest.approx(np.mean(right))
    shares = (torch.tensor(data.format.counts) + 1) / (sum(data.format.counts) + data.format.vocabulary)
    assert float(told["chance_loss"]) == pytest.approx(float(-shares[answers[answers >= 0]].log().mean()), rel=1e-4)


def test_losses_have_the_right_gradients() -> None:
    torch.manual_seed(0)
    assert float(word_cross_entropy(torch.zeros(3, 7), torch.tensor([1, 2, 3]))) == pytest.approx(math.log(7))
    assert float(word_cross_entropy(torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))) == 0
    follows = torch.tensor([1, 0, -1, 1, -1])
    given = torch.randn(5, requires_grad=True)
    expected = -torch.stack([F.logsigmoid(given[0]), F.logsigmoid(-given[1]), F.logsigmoid(given[3])]).mean()
    torch.testing.assert_close(follow_cross_entropy(given, follows), expected)
    assert float(follow_cross_entropy(torch.zeros(5), follows)) == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(follow_cross_entropy(given, follows), given)
    assert torch.equal(gradient == 0, follows < 0)


# Pairs


def passage(*words: int, length: int = 12) -> Tensor:
    return torch.tensor([FIRST, *words, BETWEEN, *[PAD] * (length - len(words) - 2)])


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ((5, 6), (7,), (FIRST, 5, 6, BETWEEN, 7, BETWEEN)),
        (range(10, 20), range(20, 30), (FIRST, *range(15, 20), BETWEEN, *range(20, 24), BETWEEN)),
        (range(10, 20), (20, 21), (FIRST, *range(13, 20), BETWEEN, 20, 21, BETWEEN)),
        ((10, 11), range(20, 30), (FIRST, 10, 11, BETWEEN, *range(20, 27), BETWEEN)),
        (range(10, 20), None, (FIRST, *range(10, 20), BETWEEN)),
    ],
)
def test_pairs_are_cut_where_they_do_not_meet(first: tuple, second: tuple | None, wanted: tuple) -> None:
    other = torch.zeros(12, dtype=torch.int64) if second is None else passage(*second)
    found = joined(passage(*first)[None], other[None])[0]
    assert found.tolist() == [*wanted, *[PAD] * (12 - len(wanted))]


def test_half_of_the_second_passages_follow_and_none_is_of_the_same_document(data: MemoryText) -> None:
    torch.manual_seed(0)
    fields = many(data, 10)
    pairs, follows = PairViews(data.format)(fields)
    has_one = fields["following"][:, 0] != PAD
    assert torch.equal(follows >= 0, has_one)
    assert (follows[has_one] == 1).float().mean() == pytest.approx(0.5, abs=0.05)
    right = shortened(joined(fields["tokens"].long(), fields["following"].long()))[:, : pairs.shape[1]]
    assert torch.equal(pairs[follows != 0], right[follows != 0])
    owners: dict[tuple, set[int]] = {}
    for group, second in zip(fields["groups"].tolist(), fields["following"].tolist(), strict=True):
        owners.setdefault(tuple(second[:6]), set()).add(group)
    for pair, group in zip(pairs[follows == 0], fields["groups"][follows == 0].tolist(), strict=True):
        cut = (pair == BETWEEN).nonzero()[0, 0] + 1
        second = (FIRST, *pair[cut : cut + 5].tolist())
        found = set().union(*(own for key, own in owners.items() if key[: len(second)] == second))
        assert found - {group} or len(second) < 6 or BETWEEN in second or PAD in second


def test_pairs_with_hidden_words_keep_their_order(data: MemoryText) -> None:
    torch.manual_seed(0)
    seen, answers, follows = HiddenWordPairViews(data.format)(many(data, 1))
    assert ((seen == BETWEEN).sum(1) == 2)[follows >= 0].all()
    assert (answers[seen == BETWEEN] == -1).all()


def test_a_batch_in_which_nothing_can_be_asked_teaches_nothing(data: MemoryText) -> None:
    of_one = data.read(np.flatnonzero(data.groups == data.groups[0]))
    pairs, follows = PairViews(data.format)(of_one)
    assert (follows == -1).all()
    case = text_case("next_sentence")
    case.method.train()
    losses = case.method.training_step(Batch((pairs, follows), torch.arange(len(pairs)), 0.5))
    losses["loss"].backward()
    assert losses["loss"] == 0
    assert losses["accuracy"] == 0
    assert all(not p.grad.any() for p in case.method.parameters() if p.grad is not None)


def test_what_passages_have_in_common_does_not_change_where_a_second_one_is_missing() -> None:
    torch.manual_seed(0)
    follows = Follows(8).train()
    pairs = torch.tensor([[FIRST, 9, 10, BETWEEN, 11, 12, BETWEEN], [FIRST, 13, 14, BETWEEN, 15, 16, BETWEEN]])
    found = torch.randn(2, 7, 8) + 5
    follows(found, pairs)
    lone = torch.cat([pairs, torch.tensor([[FIRST, 9, 10, BETWEEN, BETWEEN, PAD, PAD]])])
    again = Follows(8).train()
    again(torch.cat([found, found[:1]]), lone)
    own = found[0, 1:3].mean(0)
    means = torch.stack(
        [found[0, 1:3].mean(0), found[1, 1:3].mean(0), own, found[0, 4:6].mean(0), found[1, 4:6].mean(0), own]
    )
    torch.testing.assert_close(again.norm.running_mean, 0.1 * means.mean(0))


# word2vec


def slow(inner: Tensor, outer: Tensor, against: Tensor, words: Tensor, reach: Tensor, k: int, cbow: bool) -> Tensor:
    terms, count = [], 0
    for row in range(len(words)):
        for place in range(words.shape[1]):
            near = [
                other
                for other in range(words.shape[1])
                if words[row, place] and words[row, other] and 0 < abs(other - place) <= reach[row, place]
            ]
            if not near:
                continue
            asked = (
                [(inner[row, near].mean(0), outer[row, place])]
                if cbow
                else [(inner[row, place], outer[row, n]) for n in near]
            )
            for one, other in asked:
                wrong = -F.logsigmoid(-(against[row] @ one)).mean()
                terms.append(-F.logsigmoid(one @ other) + k * wrong)
                count += 1
    return torch.stack(terms).sum() / count


@pytest.mark.parametrize("cbow", [False, True])
def test_losses_of_neighbours_and_their_gradients_are_those_of_a_loop(cbow: bool) -> None:
    torch.manual_seed(0)
    words = torch.tensor([[5, 6, 7, 8, 9, 5], [6, 9, 8, 0, 0, 0], [7, 0, 0, 0, 0, 0]])
    reach = torch.randint(1, 4, words.shape)
    inner, outer = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    given = inner.requires_grad_(), outer.requires_grad_(), torch.randn(3, 5, 4, dtype=torch.float64).requires_grad_()
    near = neighbours(words, reach).double()
    with torch.no_grad():
        total, counts, *found = (cbow_loss if cbow else skip_gram_loss)(*given, near, 3)
    wanted = slow(*given, words, reach, 3, cbow)
    torch.testing.assert_close(total / counts.sum(), wanted.detach())
    for one, other in zip(found, torch.autograd.grad(wanted * counts.sum(), given), strict=True):
        torch.testing.assert_close(one, other)


def test_losses_stay_finite_where_a_sigmoid_does_not() -> None:
    far = torch.full((1, 2, 1), 200.0)
    for loss in (cbow_loss, skip_gram_loss):
        found = loss(far, -far, far, torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), 3)
        assert all(one.isfinite().all() for one in found)


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
def test_a_step_of_word2vec_is_that_of_all_its_pairs(
    data: MemoryText, architecture: Literal["skip_gram", "cbow"]
) -> None:
    """The gradient of rare words is that of the slow loss times its number of terms, whatever the passages' lengths; of
    a word in more terms than `MOST`, so many times their mean."""
    torch.manual_seed(0)
    method, cbow = Word2Vec(data.format, architecture=architecture, dim=4), architecture == "cbow"
    nn.init.normal_(method.contexts.weight)
    nn.init.normal_(method.encoder.words.weight)
    words = torch.randint(5, data.format.vocabulary, (90, 6)) * (torch.arange(6) < torch.randint(1, 7, (90, 1)))
    words[:, 0] = 5
    reach, drawn = torch.randint(1, 3, words.shape), torch.randint(6, data.format.vocabulary, (90, 9))
    (3 * method.training_step(Batch((words, reach, drawn), torch.arange(90), 0.0))["loss"]).backward()
    found = [method.encoder.words.weight.grad, method.contexts.weight.grad]
    method.zero_grad()
    terms = neighbours(words, reach).sum(2)
    terms = (terms > 0).float() if cbow else terms
    inner, outer, against = method.encoder.words(words), method.contexts(words), method.contexts(drawn)
    (3 * slow(inner, outer, against, words, reach, 5, cbow) * terms.sum()).backward()
    shares = torch.ones(2, data.format.vocabulary)
    for number in range(5, data.format.vocabulary):
        times = float(terms[words == number].sum())
        chance = float(((drawn == number).sum(1) * terms.sum(1)).sum() * 5 / 9)
        shares[:, number] = MOST / torch.tensor([times, times + chance]).clamp_min(MOST)
    assert shares[0, 5] < 1 == shares[0].amax()
    for one, share, table in zip(found, shares, (method.encoder.words, method.contexts), strict=True):
        assert table.weight.grad is not None
        torch.testing.assert_close(one, table.weight.grad * share[:, None], rtol=1e-4, atol=1e-4)


def test_frequent_words_are_thinned_out_and_drawn_by_their_share() -> None:
    counts = (0, 0, 900, 900, 0, 8000, 1000, 100, 10)
    form = TextFormat(10, len(counts), counts)
    tokens = torch.tensor([[FIRST, 5, 5, 5, 6, 7, 8, 1, BETWEEN, PAD]] * 4000, dtype=torch.int32)
    torch.manual_seed(0)
    words, reach, drawn = WindowViews(form, sample=0.05, window=3, drawn=4)(Fields(tokens=tokens))
    found = words.flatten().bincount(minlength=9).float() / 4000
    share = 8000 / 9110 / 0.05
    assert float(found[5]) == pytest.approx(3 * (share**0.5 + 1) / share, abs=0.05)
    assert found[1] == found[FIRST] == found[BETWEEN] == 0
    assert found[7] == found[8] == 1
    assert set(reach.unique().tolist()) == {1, 2, 3}
    wanted = torch.tensor(counts[5:], dtype=torch.float64) ** 0.75
    told = drawn.flatten().bincount(minlength=9)[5:].double()
    torch.testing.assert_close(told / told.sum(), wanted / wanted.sum(), rtol=0, atol=0.01)
    there = words != 0
    assert not (there[:, 1:] & ~there[:, :-1]).any()


def test_without_thinning_every_word_stays(data: MemoryText) -> None:
    fields = many(data, 1)
    words, *_ = WindowViews(data.format, sample=0.0)(fields)
    assert torch.equal((words != 0).sum(1), (fields["tokens"] >= 5).sum(1))
    with pytest.raises(ValueError, match="not counted"):
        WindowViews(TextFormat(10, 20))


def test_features_of_word2vec_are_means_of_word_vectors(data: MemoryText) -> None:
    encoder = TextEncoder(30, 6, dim=4, depth=0, heads=1).eval()
    tokens = torch.tensor([[FIRST, 7, 9, BETWEEN, 0, 0], [FIRST, BETWEEN, 0, 0, 0, 0]])
    found = encoder(tokens)
    torch.testing.assert_close(found[0], encoder.words.weight[[7, 9]].mean(0))
    assert not found[1].any()
