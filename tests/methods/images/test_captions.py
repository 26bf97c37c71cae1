"""What clip and virtex compute, against slow references."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat, TextFormat
from sslflow.data.tokens import BETWEEN, FIRST, PAD
from sslflow.methods.images.clip import CLIP, chance, interchangeable
from sslflow.methods.images.virtex import VirTex, next_tokens
from sslflow.networks.captioner import Captioner, turned
from sslflow.networks.encoder import Encoder
from sslflow.networks.matcher import trimmed
from sslflow.networks.symmetric import symmetric_info_nce
from sslflow.networks.text import TextEncoder
from sslflow.training.method import Batch
from sslflow.views.captions import CaptionedView, CaptionedViews, caption_numbers, drawn_captions
from sslflow.views.strengths import Blur, Colour, Crop

LENGTH, VOCABULARY = 6, 16
SMALL = {"name": "resnet10", "width": 8, "stem_stride": 2}


def caption(*words: int) -> list[int]:
    return [FIRST, *words, BETWEEN, *[PAD] * (LENGTH - 2 - len(words))]


NONE = [PAD] * LENGTH
CAPTIONS = torch.tensor(
    [
        [caption(7), caption(7, 8), NONE],
        [caption(7), caption(9), NONE],
        [caption(10, 11), caption(12), caption(13)],
        [caption(8, 7), NONE, NONE],
    ],
    dtype=torch.int32,
)


def test_a_caption_is_drawn_of_those_that_there_are() -> None:
    torch.manual_seed(0)
    seen: list[set[tuple[int, ...]]] = [set() for _ in CAPTIONS]
    for _ in range(60):
        drawn, numbers = drawn_captions(CAPTIONS)
        for row, one in enumerate(drawn.tolist()):
            seen[row].add(tuple(one))
        assert torch.equal(numbers[:, 0], caption_numbers(drawn))
    assert [len(one) for one in seen] == [2, 2, 3, 1]
    assert tuple(NONE) not in set.union(*seen)


def test_captions_have_a_number_of_their_own() -> None:
    numbers = caption_numbers(CAPTIONS)
    assert (numbers == 0).tolist() == (CAPTIONS[:, :, 0] == PAD).tolist()
    assert numbers[0, 0] == numbers[1, 0]
    assert numbers[0, 1] != numbers[3, 0], "the order of words counts"
    assert len(set(numbers.flatten().tolist())) == 8  # seven captions, and none


def test_views_are_mirrored_only_where_asked_and_shown_without_captions() -> None:
    format = ImageFormat(3, 8, (0.5,) * 3, (0.25,) * 3)
    still = {"crop": Crop(1.0), "colour": Colour(jitter=0.0, grey=0.0), "blur": Blur(p=0.0)}
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images[..., 4:] = 255
    fields = Fields(images=images, captions=CAPTIONS)
    mirrored, left = (CaptionedViews(format, flip=flip, **still)(fields)[0].mean((0, 1, 2)) for flip in (1.0, 0.0))
    assert mirrored[0] > 1 > -1 > mirrored[-1]
    assert left[0] < -1 < 1 < left[-1]
    usual = CaptionedViews(format, **still)(fields)[0].mean((0, 1, 2))
    torch.testing.assert_close(usual, left, rtol=0, atol=1e-4)
    two, one = CaptionedViews(format, **still), CaptionedView(format, **still)
    assert [view.shape for view in two(fields)] == [images.shape, images.shape, (4, LENGTH), (4, 4)]
    assert [view.shape for view in one(fields)] == [images.shape, (4, LENGTH)]
    assert len(two.shown(two(fields))) == 2
    assert len(one.shown(one(fields))) == 1


def test_what_fits_as_well_is_no_wrong_answer() -> None:
    """Images 0 and 1 have a caption in common, and 2 and 3 are one image."""
    numbers = torch.tensor([[7, 7, 8], [9, 7, 9], [5, 5, 0], [6, 6, 0]])
    same = interchangeable(numbers, torch.tensor([0, 1, 2, 2]))
    slow = torch.eye(4, dtype=torch.bool)
    for i in range(4):
        for j in range(4):
            slow[i, j] |= bool(set(numbers[i, :1].tolist()) & set(numbers[j, 1:].tolist()))
            slow[i, j] |= bool(set(numbers[j, :1].tolist()) & set(numbers[i, 1:].tolist()))
    slow[2, 3] = slow[3, 2] = True
    assert torch.equal(same, slow)
    assert same[0, 1]
    assert not same[0, 2]


def test_nothing_is_nobodys_caption() -> None:
    """Padding after the captions of both does not make them alike."""
    assert not interchangeable(torch.tensor([[5, 5, 0], [6, 6, 0]]), torch.arange(2)).triu(1).any()


def test_chance_is_what_the_loss_is_where_all_is_alike() -> None:
    same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).bool()
    alike = torch.ones(4, 3)
    assert float(chance(same)) == pytest.approx(float(symmetric_info_nce(alike, alike, 9.0, same)))
    assert float(chance(same)) == pytest.approx((2 * math.log(3) + 2 * math.log(4)) / 4)


def clip(ssl_weight: float) -> tuple[CLIP, Batch]:
    torch.manual_seed(0)
    text = TextEncoder(VOCABULARY, LENGTH, dim=16, depth=1, heads=2)
    method = CLIP(Encoder(3, 16, **SMALL), text, dim=8, ssl_weight=ssl_weight, projector=(12, 8), ssl_temperature=0.5)
    drawn, numbers = drawn_captions(CAPTIONS)
    views = torch.randn(2, 4, 3, 16, 16)
    return method.eval(), Batch((*views, drawn, numbers), torch.arange(4), 0.5)


def test_the_loss_of_clip_is_that_of_its_parts() -> None:
    method, batch = clip(0.7)
    losses = method.training_step(batch)
    first, second, tokens, numbers = batch.views
    assert method.projector
    texts = F.normalize(method.text_head(method.text_encoder(tokens)), dim=1)
    same = interchangeable(numbers, batch.rows)
    ours = [
        symmetric_info_nce(method.image_head(method.encoder(view)), texts, 1 / 0.07, same) for view in (first, second)
    ]
    z = F.normalize(torch.cat([method.projector(method.encoder(view)) for view in (first, second)]), dim=1)
    logits = (z @ z.T / 0.5).fill_diagonal_(-math.inf)
    of_images = F.cross_entropy(logits, torch.arange(8).roll(4))
    torch.testing.assert_close(losses["captions"], (ours[0] + ours[1]) / 2)
    torch.testing.assert_close(losses["images"], of_images)
    torch.testing.assert_close(losses["loss"], losses["captions"] + 0.7 * of_images)
    alone, _ = clip(0.0)
    assert alone.projector is None
    alone.load_state_dict({name: one for name, one in method.state_dict().items() if not name.startswith("projector")})
    torch.testing.assert_close(alone.training_step(batch)["loss"], ours[0])


def test_the_temperature_is_learnt_and_capped() -> None:
    method, batch = clip(0.0)
    method.training_step(batch)["loss"].backward()
    assert method.log_scale.grad is not None
    assert method.log_scale.grad != 0
    with torch.no_grad():
        method.log_scale.fill_(9.0)
    method.after_step(0.5)
    assert method.log_scale.exp().item() == pytest.approx(100, rel=1e-5)
    with torch.no_grad():
        method.log_scale.fill_(1.0)
    method.after_step(0.5)
    assert method.log_scale.item() == 1.0


def test_captions_are_turned_and_padding_is_cut() -> None:
    tokens = CAPTIONS[:, 1].long()
    assert turned(tokens).tolist() == [
        [BETWEEN, 8, 7, FIRST, PAD, PAD],
        [BETWEEN, 9, FIRST, PAD, PAD, PAD],
        [BETWEEN, 12, FIRST, PAD, PAD, PAD],
        NONE,
    ]
    assert torch.equal(turned(turned(tokens)), tokens)
    assert trimmed(tokens).tolist() == tokens[:, :4].tolist()
    assert trimmed(tokens[3:]).shape == (1, 1)


def test_the_loss_of_words_is_a_mean_of_captions_not_of_tokens() -> None:
    torch.manual_seed(0)
    tokens, logits = CAPTIONS[:3, 1].long(), torch.randn(3, LENGTH - 1, VOCABULARY)
    means, rights = [], []
    for row, own in enumerate(tokens.tolist()):
        logs = [
            (-float(logits[row, place].log_softmax(0)[word]), float(logits[row, place].argmax() == word))
            for place, word in enumerate(own[1:])
            if word != PAD
        ]
        means.append(sum(loss for loss, _ in logs) / len(logs))
        rights.append(sum(right for _, right in logs) / len(logs))
    there = tokens[:, 1:] != PAD
    loss, right = next_tokens(logits[there], tokens)
    assert float(loss) == pytest.approx(sum(means) / 3, rel=1e-5)
    assert float(right) == pytest.approx(sum(rights) / 3)
    assert float(next_tokens(torch.zeros_like(logits)[there], tokens)[0]) == pytest.approx(
        math.log(VOCABULARY), rel=1e-6
    )


def captioner() -> Captioner:
    torch.manual_seed(0)
    made = Captioner(5, VOCABULARY, LENGTH, 16, 1, 2).eval()
    with torch.no_grad():
        made.words.weight.mul_(40)  # sure of what it says
    return made


@pytest.mark.parametrize("backwards", [False, True])
def test_no_word_is_told_from_those_after_it(backwards: bool) -> None:
    made, tokens = captioner(), CAPTIONS[:1, 1].long()
    seen = torch.randn(1, 3, 16)
    other = tokens.clone()
    other[0, 2] = 14
    before, after = (made(seen, one, backwards=backwards) for one in (tokens, other))
    torch.testing.assert_close(before[0, :2], after[0, :2])
    assert not torch.allclose(before[0, 2:4], after[0, 2:4])
    assert not torch.allclose(before, made(seen + 1, tokens, backwards=backwards))
    wanted = tokens > 8
    torch.testing.assert_close(made(seen, tokens, backwards, wanted=wanted), before[wanted])


@torch.no_grad()
def test_a_beam_as_wide_as_the_vocabulary_finds_the_likeliest_caption() -> None:
    """Of all captions of two words at most."""
    torch.manual_seed(0)
    made = Captioner(5, 7, 4, 16, 1, 2).eval()
    made.words.weight.mul_(30)
    seen = torch.randn(6, 3, 16)
    words = [4, 5, 6]
    every = [
        [],
        *([a] for a in words),
        *([a, b] for a in words for b in words),
        *([a, b, c] for a in words for b in words for c in words),
    ]

    def score(one: Tensor, own: list[int]) -> float:
        logits = made(one[None], torch.tensor([[FIRST, *own]]))[0]
        logits[:, [0, 1, 2]] = -math.inf
        logs = logits.log_softmax(1)
        whole = [*own, BETWEEN][:3]
        return sum(float(logs[place, word]) for place, word in enumerate(whole)) / (len(whole) + 1)

    found = made.captions(seen, beams=100)
    for row, one in enumerate(seen):
        best = max(every, key=lambda own: score(one, own))
        whole = [FIRST, *best, BETWEEN][:4]
        assert found[row].tolist() == whole + [PAD] * (4 - len(whole))


@torch.no_grad()
def test_one_beam_takes_the_likeliest_word_each_time() -> None:
    made, seen = captioner(), torch.randn(5, 3, 16)
    found = made.captions(seen, beams=1)
    for row, one in enumerate(seen):
        tokens = [FIRST]
        while len(tokens) < LENGTH and tokens[-1] != BETWEEN:
            logits = made(one[None], torch.tensor([tokens]))[0, -1]
            logits[[0, 1, 2]] = -math.inf
            tokens.append(int(logits.argmax()))
        assert found[row].tolist() == tokens + [PAD] * (LENGTH - len(tokens))


def test_virtex_learns_the_captions_of_a_few_images() -> None:
    torch.manual_seed(0)
    method = VirTex(Encoder(3, 16, **SMALL), TextFormat(LENGTH, VOCABULARY), dim=16, heads=2)
    images, tokens = torch.randn(4, 3, 16, 16), CAPTIONS[:, 0].long()
    tokens[1] = torch.tensor(caption(9))
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        method.training_step(Batch((images, tokens), torch.arange(4), 0.5))["loss"].backward()
        optimizer.step()
    assert torch.equal(method.told(images, 3), tokens)


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="dim 10 does not divide into 4 heads"):
        VirTex(Encoder(3, 16, **SMALL), TextFormat(LENGTH, VOCABULARY), dim=10, heads=4)
