"""What images lose on the way to 8 bits of one size, counted while they are prepared, and said in the end."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sslflow.data.splits import TEST
from sslflow.ingest.images.examine import Examined
from sslflow.ingest.images.first_rows import FirstRows
from sslflow.ingest.images.raster import SixteenBit
from sslflow.ingest.records import escape

_NARROW = 1 / 8
"""An image that uses a smaller share of its range keeps less than 32 of 256 shades."""


class Losses:
    """Counts of images; holds a hash for each."""

    def __init__(self, sixteen_bit: SixteenBit) -> None:
        self._sixteen_bit = sixteen_bit
        self.left_out = 0
        """Pages, frames and bands."""
        self._pages = _Group()
        self._bands = _Group()
        self._narrow = _Group()
        self._own_range = _Group()
        self._constant = _Group()
        self._alike = _Group()
        self._deep = self._leaks = 0
        self._low, self._high, self._white = math.inf, -math.inf, 0
        self._tested, self._learned = FirstRows(), FirstRows()

    def add(self, item: Examined, repeated: bool) -> None:
        """An image; `repeated`: another one holds the same picture."""
        decoded, used = item.decoded, item.decoded.used
        self.left_out += decoded.pages + decoded.bands
        self._pages.add(item, decoded.pages)
        self._bands.add(item, decoded.bands)
        if used is not None:
            self._deep += 1
            self._own_range.add(item, used.white is None and not isinstance(self._sixteen_bit, tuple))
            if used.white and self._sixteen_bit == "full" and used.high - used.low < _NARROW * used.white:
                self._narrow.add(item, 1)
                self._low, self._high = min(self._low, used.low), max(self._high, used.high)
                self._white = max(self._white, used.white)
        if repeated:
            return
        self._constant.add(item, item.moments.constant)
        key = item.look
        self._alike.add(item, key in self._tested or key in self._learned)
        self._leaks += key in self._tested and item.split != TEST
        (self._tested if item.split == TEST else self._learned).add(key, 0)

    def warnings(self) -> Iterator[str]:
        """A sentence for each loss that there was."""
        if self._pages:
            more = f"{self._pages.total} were left out"
            yield f"{self._pages.words('has', 'have')} more than one page or frame: the first was read, {more}"
        if self._bands:
            yield f"{self._bands.words('has', 'have')} bands besides the colours: {self._bands.total} were left out"
        if self._narrow:
            low, high = math.floor(self._low), math.ceil(self._high)
            yield (
                f"{self._narrow.words('uses', 'use')} less than an eighth of the range of"
                f" {self._white.bit_length()} bits (values from {low} to {high}), most of which is lost in 8 bits: set"
                f" sixteen_bit to [{low}, {high}], the same for all images, or to stretch, each image's own range"
            )
        if self._own_range:
            yield (
                f"{self._own_range.words('has', 'have')} values that no white is defined for (floating point, signed,"
                " more than 16 bits), so that each was spread over its own range: set sixteen_bit to [low, high] to"
                " keep brightness comparable"
            )
        if self._constant:
            yield (
                f"{self._constant.words('is', 'are')} of one colour once prepared: look at {self._settings()}, or at"
                " background for what is transparent"
            )
        if self._alike:
            leaks = f"; {self._leaks} to learn from look like a test image, so that scores flatter" * bool(self._leaks)
            yield (
                f"{self._alike.words('looks', 'look')} like another one once prepared, though the files hold different"
                f" pictures{leaks}: look at {self._settings()}"
            )

    def _settings(self) -> str:
        return "sixteen_bit and image_size" if self._deep else "image_size and channels"


class _Group:
    """Images that have something in common."""

    def __init__(self) -> None:
        self.total = self._count = 0
        self._first = ""

    def add(self, item: Examined, number: int) -> None:
        if number:
            self._first = self._first or escape(item.name)
            self._count += 1
            self.total += number

    def __bool__(self) -> bool:
        return self._count > 0

    def words(self, one: str, several: str) -> str:
        if self._count == 1:
            return f"{self._first} {one}"
        return f"{self._count} images, such as {self._first}, {several}"
