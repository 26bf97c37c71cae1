"""A tokenizer trained on the text that is there: parts of words (byte-pair encoding, arXiv:1508.07909), or words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from sslflow.data.tokens import SPECIAL, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Units = Literal["pieces", "words"]
_BEGINS = "\u2581"
"""What a piece begins with that begins a word."""


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, lowercase: bool = True, units: Units = "pieces"
) -> Tokenizer:
    """Of `vocabulary` tokens at most, the special ones among them. Pieces: whole words where they are frequent, parts
    of words where they aren't. Words: the most frequent ones; all others are unknown. Marks are tokens of their own.
    The same texts in the same order give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    if units == "words":
        tokenizer = Tokenizer(models.WordLevel({}, unk_token=SPECIAL[UNKNOWN]))
        parts = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
        decoder = None  # words are put together with spaces
        trainer = trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
        parts = [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
        decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.normalizer = normalizers.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)  # pyright: ignore[reportAttributeAccessIssue]
    if decoder:
        tokenizer.decoder = decoder  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True  # what looks like one in a text is text
    return tokenizer


def inside_words(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that go on with a word which an earlier one began; none of a tokenizer of words."""
    if tokenizer.decoder is None:
        return ()
    found = tokenizer.get_vocab().items()
    return tuple(
        sorted(
            number
            for token, number in found
            if number >= len(SPECIAL) and not token.startswith(_BEGINS) and not _is_mark(token)
        )
    )


def _is_mark(token: str) -> bool:
    return all(unicodedata.category(letter).startswith(("P", "S")) for letter in token)
