"""Bytes to text, and text to the passages that examples are made of."""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Literal

Passages = Literal["paragraph", "line", "sentence"]
LONGEST_WORD = 1000
"""Letters without a space or a mark, more than which are no words: encoded data, or a script whose words nothing
parts."""
_BOMS = {
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-32"),  # that of UTF-16 is its beginning
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "UTF-16"),
}
_BLANK = re.compile(r"\n[^\S\n]*\n\s*")
_AFTER_SENTENCE = re.compile(r"(?<=[.!?][\"'”’)\s])(?=\S)|(?<=[.!?])\s+(?=[\"'“‘(]?[^\W\d_a-z])|(?<=[。！？])")
_UNBROKEN = re.compile(rf"\w{{{LONGEST_WORD},}}")


def decoded(content: bytes) -> str:
    """Bytes of UTF-8, with or without a byte order mark. Raises `ValueError` with the reason where they are none, or
    empty."""
    for mark, name in _BOMS.items():
        if content.startswith(mark):
            raise ValueError(f"not UTF-8: it begins as {name} does; save it as UTF-8")
    if b"\0" in content:
        raise ValueError("not text: it holds NUL bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise ValueError(f"not UTF-8: byte 0x{byte:02x} at {error.start}; save it as UTF-8") from None
    if not text.strip():
        raise ValueError("empty: no letters in it")
    return text


def read_text(content: bytes) -> str:
    """What is `decoded`. Raises `ValueError`, too, where it is no words."""
    text = decoded(content)
    if found := _UNBROKEN.search(text):
        raise ValueError(f"not words: {found.end() - found.start():,} letters without a space or a mark")
    return text


def passages_of(text: str, passages: Passages) -> list[str]:
    """The passages of a text, with single spaces; none that is empty. Paragraphs end at blank lines, sentences at
    `.`, `!` or `?` before a space and a capital letter, or at `。`, `！`, `？`."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    if passages == "line":
        parts = lines.split("\n")
    else:
        parts = _BLANK.split(lines)
        if passages == "sentence":
            parts = [sentence for part in parts for sentence in _AFTER_SENTENCE.split(" ".join(part.split()))]
    return [whole for part in parts if (whole := " ".join(part.split()))]


def same_as(passage: str) -> str:
    """What equal passages have in common: their letters, whatever their case, width and spaces."""
    return " ".join(unicodedata.normalize("NFKC", passage).casefold().split())
