"""A tokenizer trained on the text that is there (byte-pair encoding, arXiv:1508.07909)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sslflow.data.tokens import SPECIAL, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def train_tokenizer(texts: Iterable[str], vocabulary: int, lowercase: bool = True) -> Tokenizer:
    """Byte-pair encoding of `vocabulary` tokens at most, the special ones among them: whole words where they are
    frequent, parts of words where they aren't. The same texts in the same order give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
