"""A sentence encoder from files as they are published, against a BERT written out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from sslflow.data.tokens import SPECIAL, encoded
from sslflow.networks.sentences import SentenceEncoder
from sslflow.networks.starts import Start
from sslflow.networks.weights import suited

DIM, HEADS, INNER, PLACES = 8, 2, 16, 12
WORDS = ("in", "the", "begin", "##ning", "was", "a", "word")


def tokenizer(words: tuple[str, ...]) -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    if any(word.startswith("##") for word in words):
        made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        ends = (("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"]))
        made.post_processor = processors.BertProcessing(ends[1], ends[0])
    else:
        made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sizes = {"hidden_size": DIM, "num_attention_heads": HEADS, "intermediate_size": INNER, "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "layer_norm_eps": 1e-12}))
    tokenizer(WORDS).save(str(tmp_path / "tokenizer.json"))
    shapes = {
        "word_embeddings.weight": (len(WORDS) + len(SPECIAL), DIM),
        "position_embeddings.weight": (PLACES, DIM),
        "token_type_embeddings.weight": (2, DIM),
        "LayerNorm.weight": (DIM,),
        "LayerNorm.bias": (DIM,),
    }
    linear = {"attention.output.dense": (DIM, DIM), "intermediate.dense": (INNER, DIM), "output.dense": (DIM, INNER)}
    linear |= {f"attention.self.{name}": (DIM, DIM) for name in ("query", "key", "value")}
    torch.manual_seed(0)
    state = {f"embeddings.{name}": torch.randn(shape) for name, shape in shapes.items()}
    for number in range(2):
        before = f"encoder.layer.{number}."
        for name, shape in linear.items():
            state |= {f"{before}{name}.weight": torch.randn(shape), f"{before}{name}.bias": torch.randn(shape[0])}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            state |= {f"{before}{name}.weight": torch.randn(DIM), f"{before}{name}.bias": torch.randn(DIM)}
    save_file(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "state.pt")
    return tmp_path


def slow(state: dict[str, Tensor], tokens: list[int]) -> Tensor:
    """The mean over the tokens of one passage."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-12)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = state["embeddings.word_embeddings.weight"][tokens] + state["embeddings.token_type_embeddings.weight"][0]
    x = norm(x + state["embeddings.position_embeddings.weight"][: len(tokens)], "embeddings.LayerNorm")
    for number in range(2):
        at = f"encoder.layer.{number}"
        q, k, v = (
            linear(x, f"{at}.attention.self.{one}").view(-1, HEADS, DIM // HEADS) for one in ("query", "key", "value")
        )
        weights = (torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(DIM // HEADS)).softmax(2)
        seen = torch.einsum("hij,jhd->ihd", weights, v).reshape(-1, DIM)
        x = norm(x + linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = 0.5 * (h := linear(x, f"{at}.intermediate.dense")) * (1 + torch.erf(h / math.sqrt(2)))
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x.mean(0)


def test_features_are_those_of_the_text_of_our_tokens(folder: Path) -> None:
    ours = tokenizer(("the", "beginning", "was", "word", "in"))
    encoder = SentenceEncoder(folder, ours, {})
    texts = ["in the beginning was the word", "word", "", "the strange word " * 9]
    with torch.no_grad():
        found = encoder(torch.from_numpy(encoded(ours, texts, 48)).long())
    theirs = tokenizer(WORDS)
    state = torch.load(folder / "state.pt", weights_only=True)
    for text, one in zip(texts, found, strict=True):
        kept = theirs.encode(text.replace("strange", "[UNK]")).ids
        kept = [*kept[: PLACES - 1], kept[-1]] if len(kept) > PLACES else kept
        torch.testing.assert_close(one, slow(state, kept), rtol=1e-4, atol=1e-5)


def test_no_passages_have_no_features(folder: Path) -> None:
    encoder = SentenceEncoder(folder, tokenizer(("the",)), {})
    assert encoder(torch.zeros(0, 6, dtype=torch.int64)).shape == (0, DIM)


def test_other_files_are_refused(folder: Path) -> None:
    save_file({"embeddings.word_embeddings.weight": torch.zeros(3, DIM)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="not the files of a BERT"):
        SentenceEncoder(folder, tokenizer(("the",)), {})


def test_a_sentence_encoder_is_none_of_images() -> None:
    with pytest.raises(ValueError, match="for text alone"):
        suited(Start(weights="package:minilm-l6"))
