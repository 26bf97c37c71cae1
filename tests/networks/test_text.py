"""The encoder of text, and how encoders of every kind are written and read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sslflow.data.formats import ImageFormat, TextFormat
from sslflow.networks.saved import load_encoder, new_encoder, save_encoder, suits
from sslflow.networks.text import TextEncoder

FORM = TextFormat(8, 30)
SMALL = {"dim": 16, "depth": 2, "heads": 2}
TOKENS = torch.tensor([[2, 9, 8, 3, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0], [2, 5, 6, 7, 8, 9, 10, 3]])


def made(**settings: object) -> TextEncoder:
    torch.manual_seed(0)
    return new_encoder(FORM, {**SMALL, **settings}).eval()


@pytest.mark.parametrize("pool", ["mean", "first"])
@torch.no_grad()
def test_padding_changes_nothing(pool: str) -> None:
    encoder = made(pool=pool)
    found = encoder(TOKENS)
    assert found.shape == (3, 16)
    torch.testing.assert_close(encoder(TOKENS[:1, :4]), found[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(TOKENS[1:2, :3]), found[1:2], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_features_are_the_mean_over_what_is_no_padding() -> None:
    encoder = made()
    tokens = encoder.tokens(TOKENS)
    torch.testing.assert_close(encoder(TOKENS)[0], tokens[0, :4].mean(0))
    assert torch.equal(made(pool="first")(TOKENS), tokens[:, 0])


@torch.no_grad()
def test_order_is_seen_and_nothing_at_all_is_finite() -> None:
    encoder = made()
    swapped = TOKENS[:, [0, 2, 1, 3, 4, 5, 6, 7]]
    assert not torch.allclose(encoder(TOKENS)[0], encoder(swapped)[0])
    assert encoder(torch.zeros(2, 8, dtype=torch.int64)).isfinite().all()


def test_it_is_written_and_read(tmp_path: Path) -> None:
    encoder = made()
    encoder.facts = {"run": {"method": "masked_lm"}}
    save_encoder(encoder, tmp_path / "a.safetensors")
    again = load_encoder(tmp_path / "a.safetensors")
    assert isinstance(again, TextEncoder)
    assert again.facts == encoder.facts
    with torch.no_grad():
        assert torch.equal(again(TOKENS), encoder(TOKENS))


def test_an_encoder_suits_the_data_that_it_was_made_for() -> None:
    images = ImageFormat(1, 16, (0.5,), (0.2,))
    of_images = new_encoder(images, {"name": "resnet10", "width": 4})
    assert suits(of_images, images)
    assert suits(made(), FORM)
    assert not suits(made(), images)
    assert not suits(of_images, FORM)
    assert not suits(of_images, ImageFormat(1, 32, (0.5,), (0.2,)))
    assert not suits(made(), TextFormat(8, 31))


def test_heads_have_to_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"encoder\.dim 16 does not divide into 3 heads"):
        made(heads=3)
