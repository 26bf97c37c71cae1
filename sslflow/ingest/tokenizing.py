"""A tokenizer trained on the text that is there: parts of words (byte-pair encoding, arXiv:1508.07909), or words."""

from __future__ import annotations

import unicodedata
from collections import Counter
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
    of words where they aren't; letters for which there is no room are unknown. Words: the most frequent ones; all
    others are unknown. Marks are tokens of their own. The same texts in the same order give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    texts = list(texts)
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    normalise = normalizers.Sequence(steps)
    if units == "words":
        tokenizer = Tokenizer(models.WordLevel({}, unk_token=SPECIAL[UNKNOWN]))
        parts = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
        decoder = None  # words are put together with spaces
        trainer = trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
        parts = [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
        decoder = decoders.Metaspace()
        letters = _frequent(map(normalise.normalize_str, texts), vocabulary - len(SPECIAL))
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=letters,
            limit_alphabet=len(letters),
            special_tokens=list(SPECIAL),
            show_progress=False,
        )
    tokenizer.normalizer = normalise  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)  # pyright: ignore[reportAttributeAccessIssue]
    if decoder:
        tokenizer.decoder = decoder  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True  # what looks like one in a text is text
    return tokenizer


def _frequent(texts: Iterable[str], room: int) -> list[str]:
    """The letters of the texts, the most frequent ones where there are more than there is room for; of equally frequent
    ones those first in Unicode, where the trainer itself would choose by chance."""
    letters = Counter({_BEGINS: 1})
    for text in texts:
        letters.update(text.replace(" ", _BEGINS))
    return sorted(letters, key=lambda letter: (-letters[letter], letter))[:room]


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
