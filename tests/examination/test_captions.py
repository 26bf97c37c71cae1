"""What is asked about captions, and how answers are judged."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sslflow.evaluation.retrieval import per_query
from sslflow.examination.captions.answers import (
    blindly,
    by_comparing,
    by_nearest,
    by_own_captions,
    by_telling,
    told_f1,
)
from sslflow.examination.captions.exam import chance, judged, means, right_classes, write_answers
from sslflow.examination.captions.questions import Match, Questions
from sslflow.examination.captions.words import word_f1, words_of
from sslflow.ingest.tokenizing import train_tokenizer
from sslflow.networks.encoder import Encoder
from sslflow.networks.matcher import Matcher, load_matcher, save_matcher
from sslflow.networks.text import TextEncoder
from sslflow.runtime.about import says_about
from sslflow.runtime.tables import read_parquet

CAPTIONS = [["red bus", "bus, road"], ["red bus"], ["blue bird"], ["green tree", "a wood"]]
BANK = [["old red bus"], ["bird", "small blue bird"], ["the green tree"], ["green tree", "leaf"]]


def asked(labels: tuple[int, ...] = (0, 0, 1, 2)) -> Questions:
    """Four images, two of them with the same caption and of the same group."""
    texts = list(dict.fromkeys(text for own in CAPTIONS for text in own))
    relevant = np.array([[text in own for text in texts] for own in CAPTIONS])
    return Questions(
        np.array([10, 11, 12, 13]), np.array([0, 0, 1, 2]), np.array(labels), CAPTIONS, texts, relevant,
        ["bus", "bird", "tree"], np.arange(4), BANK,
    )  # fmt: skip


def slow(scores: list[float], relevant: list[bool]) -> tuple[float, dict[int, float]]:
    """Mean rank of the first relevant item, and shares of the orders with one among the first k, over all orders in
    which equal scores may stand."""
    ranks = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            ranks.append(1 + next(place for place, item in enumerate(order) if relevant[item]))
    return float(np.mean(ranks)), {k: float(np.mean([rank <= k for rank in ranks])) for k in (1, 5)}


def test_ranks_are_means_over_the_orders_of_equal_scores() -> None:
    rng = np.random.default_rng(0)
    scores, relevant = rng.integers(0, 3, (12, 6)).astype(float), rng.random((12, 6)) < 0.4
    relevant[:, 0] |= ~relevant.any(axis=1)
    found = per_query(scores, relevant)
    for row in range(12):
        rank, hits = slow(scores[row].tolist(), relevant[row].tolist())
        assert found["rank"][row] == pytest.approx(rank)
        assert found["r1"][row] == pytest.approx(hits[1])
        assert found["r5"][row] == pytest.approx(hits[5])


def test_a_query_without_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="for each query something relevant"):
        per_query(np.zeros((1, 3)), np.zeros((1, 3), bool))


def test_words_are_compared_as_sets() -> None:
    assert words_of("Red bus, RED-bus: 2") == {"red", "bus", "2"}
    told, known = ["a red bus", "", "öl bus"], ["red bus", "bus bus", "?", "Öl"]
    slow_f1 = [
        [2 * len(words_of(a) & words_of(b)) / max(1, len(words_of(a)) + len(words_of(b))) for b in known] for a in told
    ]
    np.testing.assert_allclose(word_f1(told, known), slow_f1, rtol=1e-6)
    assert word_f1(["x"], []).shape == (1, 0)


def test_the_caption_that_shares_most_counts() -> None:
    assert told_f1(["road", "bus", "red bird", ""], asked()).tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 2, 0])


def test_perfect_answers_have_all_points_and_the_same_answer_for_all_has_chance() -> None:
    one = asked()
    tables = judged(one, by_telling(["red bus", "red bus", "blue bird", "green tree"], one))
    found = means(one, *tables)
    assert found["zero_shot"] == found["zero_shot_balanced"] == found["told_f1"] == found["texts_r1"] == 1
    assert tables[0]["class"] == ["bus", "bus", "bird", "tree"]
    assert tables[0]["found"][2][0] == "blue bird"
    assert tables[1]["found"][0][:2] == [10, 11]
    nothing = means(one, *judged(one, by_telling([""] * 4, one)))
    level = chance(one)
    for name in ("texts_r1", "texts_r5", "images_r1", "texts_rank", "images_rank"):
        assert nothing[name] == pytest.approx(level[f"{name}_chance"])
    assert nothing["zero_shot"] == pytest.approx(level["zero_shot_chance"]) == pytest.approx(1 / 3)
    assert level["zero_shot_commonest"] == 0.5
    assert tables[0]["told"][0] == "red bus"


def test_classes_that_fit_as_well_share_the_answer() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    assert right_classes(scores, np.array([0, 2, 1])).tolist() == pytest.approx([1 / 2, 1 / 3, 0])
    named = judged(asked(), by_telling(["bus bird", "bus", "", "tree"], asked()))[0]["class"]
    assert named == ["", "bus", "", "tree"]


def test_without_classes_none_are_told() -> None:
    one = asked((-1, -1, -1, -1))
    found = means(one, *judged(one, by_telling(["bus"] * 4, one)))
    assert "zero_shot" not in found
    assert "zero_shot_chance" not in chance(one)


def test_balanced_counts_each_class_the_same() -> None:
    one = asked()
    found = means(one, *judged(one, by_telling(["bus"] * 4, one)))
    assert found["zero_shot"] == 0.5
    assert found["zero_shot_balanced"] == pytest.approx(1 / 3)


def test_the_nearest_image_lends_its_captions() -> None:
    one, bank = asked(), torch.eye(4)
    features = torch.tensor([[2.0, 0.1, 0, 0], [1, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0.1, 0.3]])
    found = by_nearest(features, bank, one)
    assert found.texts[2].argmax() == one.texts.index("blue bird"), "any of its captions will do"
    assert found.classes.argmax(axis=1).tolist() == [0, 0, 1, 2]
    scores = [told_f1([own[min(place, len(own) - 1)] for own in BANK_OF_NEAREST], one).mean() for place in range(2)]
    assert told_f1(found.told, one).mean() == pytest.approx(max(scores))


BANK_OF_NEAREST = [BANK[0], BANK[0], BANK[1], BANK[3]]


def test_without_looking_the_same_is_told_of_all() -> None:
    found = blindly(asked())
    assert len(set(found.told)) == 1
    assert found.told[0] in [text for own in BANK for text in own]
    assert (found.texts == found.texts[0]).all()


def test_captions_themselves_may_tell_the_class() -> None:
    assert by_own_captions(asked()).argmax(axis=1).tolist() == [0, 0, 1, 2]


def test_templates_are_checked() -> None:
    for templates in ((), ("a photo",), ("{} or {}",)):
        with pytest.raises(ValueError, match=r"match\.templates: each has one {}"):
            Match(templates=templates)


def a_matcher() -> Matcher:
    torch.manual_seed(0)
    tokenizer = train_tokenizer([text for own in BANK for text in own], 60)
    text = TextEncoder(tokenizer.get_vocab_size(), 8, dim=16, depth=1, heads=2)
    image = Encoder(3, 16, name="resnet10", width=8, stem_stride=2)
    made = Matcher(image, text, nn.Linear(image.dim, 6, bias=False), nn.Linear(16, 6, bias=False))
    made.tokenizer = tokenizer.to_str()
    made.facts = {"images": {"mean": [0.5] * 3, "std": [0.2] * 3}}
    return made.eval()


def test_a_matcher_is_kept_whole(tmp_path: Path) -> None:
    made, images = a_matcher(), torch.randn(2, 3, 16, 16)
    for name in ("one", "other"):
        save_matcher(made, tmp_path / f"{name}.safetensors")
    again = load_matcher(tmp_path / "one.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    assert torch.equal(made.images(images), again.images(images))
    assert torch.equal(made.of_texts(["red bus"]), again.of_texts(["red bus"]))
    assert made.of_texts(["red bus", ""]).norm(dim=1).tolist() == pytest.approx([1, 1])
    assert again.facts == made.facts


def test_another_file_is_no_matcher(tmp_path: Path) -> None:
    from sslflow.networks.saved import save_encoder

    save_encoder(Encoder(3, 16, name="resnet10", width=8), tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match="expected a model that compares images and texts"):
        load_matcher(tmp_path / "encoder.safetensors")


def test_images_are_compared_with_texts_one_by_one() -> None:
    made, one = a_matcher(), asked()
    features = torch.randn(4, made.encoder.dim)
    found = by_comparing(made, features, one, ("{}", "a {}"))
    images = made.of_features(features).detach()
    for row, text in itertools.product(range(4), range(len(one.texts))):
        cosine = float(images[row] @ made.of_texts([one.texts[text]])[0])
        assert found.texts[row, text] == pytest.approx(cosine, abs=1e-5)
    for number, name in enumerate(one.classes):
        both = (made.of_texts([name]) + made.of_texts([f"a {name}"]))[0]
        np.testing.assert_allclose(found.classes[:, number], (images @ (both / both.norm())).detach(), atol=1e-5)
    known = [text for own in BANK for text in own]
    assert found.told == [known[int(place)] for place in (images @ made.of_texts(known).T).argmax(dim=1)]


def test_answers_are_kept(tmp_path: Path) -> None:
    one = asked()
    tables = {way: judged(one, by_telling([way] * 4, one)) for way in ("nearest", "own")}
    write_answers(tmp_path, tables, one.rows)
    images, texts = (read_parquet(tmp_path / f"{name}.parquet") for name in ("images", "texts"))
    assert images["way"].to_pylist() == ["nearest"] * 4 + ["own"] * 4
    assert texts.num_rows == 2 * len(one.texts)
    assert says_about(images, one.rows)
    assert says_about(texts, one.rows)
    assert says_about(images, one.rows[1:]) is False
    write_answers(tmp_path / "none", {}, one.rows)
    assert read_parquet(tmp_path / "none" / "images.parquet").num_rows == 0
