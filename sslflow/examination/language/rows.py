"""What a row of the table of language can do: a method's, one with random weights, or one that only counts words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.dataset import Dataset
from sslflow.data.formats import TextFormat
from sslflow.data.tokens import SPECIAL
from sslflow.examination.language.following import Score
from sslflow.examination.language.hidden import hidden_words
from sslflow.examination.language.ngrams import Trigram, Unigram
from sslflow.features.words import rarity_of, tf_idf
from sslflow.networks.language import Follows, HiddenWords
from sslflow.networks.sentences import SentenceEncoder
from sslflow.networks.starts import COUNTED
from sslflow.networks.text import TextEncoder
from sslflow.views.text import joined, shortened

UNIGRAM, TRIGRAM, WORDS = COUNTED
BATCH = 256


@dataclass(frozen=True)
class Row:
    """What can be asked of a row; None: that can't."""

    hidden: Callable[[Tensor], tuple[np.ndarray, np.ndarray | None]] | None = None
    """Of each token of passages, int64 `(n, length)` on the CPU, the logarithm of its probability, float64, 0 of the
    special ones; and the likeliest token in its place, where the row tells that."""
    follows: Score | None = None
    decides: bool = False
    """Whether the score is a logit of following, above 0 where it does; else it is a likeness."""
    vectors: np.ndarray | None = None
    """Of each token, `(vocabulary, dim)`."""


def counting(name: str, dataset: Dataset[TextFormat]) -> Row:
    """One of `COUNTED`: the share of a word, or what it is after the two before it, in the passages to pretrain on; or
    how many rare words two passages share."""
    if name == WORDS:
        rarity = rarity_of(dataset)
        return Row(follows=lambda first, second: (tf_idf(first, rarity) * tf_idf(second, rarity)).sum(1))
    tokens = dataset.read(dataset.pretraining_rows)["tokens"].numpy()
    model = (Unigram if name == UNIGRAM else Trigram)(tokens, dataset.format.vocabulary)
    return Row(hidden=lambda passages: (model.log_likelihood(passages.numpy()), None))


def of_method(method: nn.Module, format: TextFormat, device: torch.device) -> Row:
    """A trained method, on the device, in evaluation mode, by the heads that it has. Without one for following, how
    alike two passages' features are stands in."""
    encoder: TextEncoder = method.encoder  # pyright: ignore[reportAssignmentType]
    words, follows = getattr(method, "words", None), getattr(method, "follows", None)
    asked = isinstance(follows, Follows)
    return Row(
        hidden=(lambda passages: hidden_words(words, passages.to(device), format))
        if isinstance(words, HiddenWords)
        else None,
        follows=_by_head(encoder, follows, device) if asked else _by_likeness(encoder, device),
        decides=asked,
        vectors=encoder.words.weight.detach().float().cpu().numpy(),
    )


def of_encoder(encoder: TextEncoder | SentenceEncoder, format: TextFormat, device: torch.device) -> Row:
    """An encoder without a head, on the device. A sentence encoder's words are passages of one word."""
    if isinstance(encoder, TextEncoder):
        vectors = encoder.words.weight.detach().float()
    else:
        words = torch.arange(format.vocabulary)[:, None]
        with torch.no_grad():
            vectors = torch.cat([encoder(part.to(device)) for part in words.split(BATCH)]).float()
    return Row(follows=_by_likeness(encoder, device), vectors=vectors.cpu().numpy())


def vocabulary(names: dict[str, int]) -> dict[str, int]:
    """The tokens that are whole words by letters alone, of a tokenizer's: word → number, in the order of the
    numbers."""
    pieces = any(name.startswith("\u2581") for name in names)
    found = {}
    for name, number in sorted(names.items(), key=lambda pair: pair[1]):
        word = name.removeprefix("\u2581")
        if number >= len(SPECIAL) and word.isalpha() and (not pieces or word != name):
            found[word] = number
    return found


def _by_head(encoder: TextEncoder, follows: Follows, device: torch.device) -> Score:
    @torch.no_grad()
    def score(first: Tensor, second: Tensor) -> Tensor:
        pairs = joined(first, second)
        found = []
        for part in pairs.split(BATCH):
            seen = shortened(part).to(device)
            found.append(follows(encoder.tokens(seen), seen).float().cpu())
        return torch.cat(found)

    return score


def _by_likeness(encoder: TextEncoder | SentenceEncoder, device: torch.device) -> Score:
    @torch.no_grad()
    def score(first: Tensor, second: Tensor) -> Tensor:
        found = []
        for one, two in zip(first.split(BATCH), second.split(BATCH), strict=True):
            features = (F.normalize(encoder(shortened(part).to(device)).float(), dim=1) for part in (one, two))
            found.append((next(features) * next(features)).sum(1).cpu())
        return torch.cat(found)

    return score
