"""Hashes of pictures: whatever differs is told apart, and however Pillow holds a picture, it is the same one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sslflow.ingest.images.decode import decode
from sslflow.ingest.images.first_rows import FirstRows
from sslflow.ingest.images.hashes import hashed, stored


@pytest.mark.parametrize("size", [0, 1, 7, 1024, 250_001])
def test_a_bit_anywhere_or_a_byte_more_makes_another_hash(size: int) -> None:
    content = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    found = {hashed("", content), hashed("", np.append(content, np.uint8(0))), hashed("else", content)}
    places = sorted({0, 1, size // 3, size - 2, size - 1} & set(range(size)))
    for place in places:
        for bit in range(8):
            changed = content.copy()
            changed[place] ^= 1 << bit
            found.add(hashed("", changed))
    assert len(found) == 3 + 8 * len(places)
    assert hashed("", content.tobytes()) == hashed("", content)


def test_what_pillow_keeps_beside_three_colours_makes_no_difference() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    image = Image.fromarray(pixels[..., :3])
    other = Image.frombytes("RGB", (40, 30), pixels.tobytes(), "raw", "RGBX")
    held = np.frombuffer(other.tobytes("raw", "RGBX"), np.uint8)[3::4]
    assert (held != 255).any()
    assert hashed("", stored(image)) == hashed("", stored(other))
    clear, opaque = (Image.fromarray(np.dstack([pixels[..., :3], alpha])) for alpha in (pixels[..., 3], pixels[..., 0]))
    assert hashed("", stored(clear)) != hashed("", stored(opaque))


def test_a_picture_in_several_pieces_is_the_same() -> None:
    """Pillow keeps what is above 16 MiB so, unless somebody else holds it."""
    pixels = np.random.default_rng(0).integers(0, 256, (2100, 2100, 3), dtype=np.uint8)
    whole = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    image = Image.fromarray(pixels)
    with pytest.raises(ValueError, match="contiguous"):
        image.__arrow_c_array__()
    assert hashed("", stored(image)) == hashed("", np.ascontiguousarray(whole))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "TGA", "PPM", "QOI", "PCX", "JPEG2000"])
def test_the_same_picture_in_another_kind_of_file_has_the_same_hash(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    content = io.BytesIO()
    settings = {"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}
    Image.fromarray(pixels).save(content, kind, **settings.get(kind, {}))
    assert decode(content.getvalue(), 32, 3).content == decode(pixels, 32, 3).content


def test_the_first_row_of_a_hash_is_what_a_dictionary_says():
    draw = np.random.default_rng(0)
    few = [draw.bytes(16) for _ in range(3_000)]
    few += [one[:8] + draw.bytes(8) for one in few[:50]]  # of the same place
    table, expected = FirstRows(), dict[bytes, int]()
    for row, number in enumerate(draw.integers(0, len(few), 6_000)):
        assert table.get(few[number]) == expected.get(few[number])
        table.add(few[number], row)
        expected.setdefault(few[number], row)
    assert [table.get(one) for one in few] == [expected.get(one) for one in few]
    assert all((one in table) == (one in expected) for one in few)
    assert len(expected) > 2048, "larger than it was at first"
