"""Kinds other than TIFF: nothing of what a file holds is lost before it is judged."""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from data_fixtures import encoded, scene, write
from PIL import Image, PngImagePlugin

from sslflow.ingest.images.decode import Refused, decode

SIDE = 16
DEEP = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 4), np.uint16, endpoint=False)
DEEP[0, 0], DEEP[0, 1] = 0, 65535


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, depth: int, *before: tuple[bytes, bytes], after: bytes = b"") -> bytes:
    """A PNG written here; its bands say which kind it is: grey, grey and alpha, RGB, RGBA."""
    height, width, bands = values.shape
    flat = values.reshape(height, -1).astype(np.int64)
    digits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(digits.astype(np.uint8).reshape(height, -1), axis=1)
    header = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(*item) for item in before)
        + chunk(b"IDAT", zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes()))
        + after
        + chunk(b"IEND", b"")
    )


def shown(content: bytes, **settings) -> np.ndarray:
    return decode(content, SIDE, 3, **settings).pixels.transpose(1, 2, 0).astype(float)


def laid(colour: np.ndarray, share: np.ndarray, shade: int) -> np.ndarray:
    return colour * share + shade * (1 - share)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize(("background", "shade"), [("white", 255), ("black", 0)])
def test_png_of_16_bits(bands, background, shade):
    values = DEEP[..., -bands:]
    colour = values if bands in (1, 3) else values[..., :-1]
    share = np.ones((SIDE, SIDE, 1)) if bands in (1, 3) else values[..., -1:] / 65535
    found = shown(png(values, 16), background=background)
    assert np.abs(found - laid(colour / 257, share, shade)).max() <= 2


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("bands", [1, 3])
def test_the_transparent_shade_of_a_png(depth, bands):
    if bands == 3 and depth < 8:
        depth = 8
    values = DEEP[..., :bands] >> (16 - depth)
    clear = (2**depth - 1) * np.ones(bands, int) if depth < 8 else values[3, 3].astype(int)
    content = png(values, depth, (b"tRNS", struct.pack(f">{bands}H", *clear)))
    blank = (values == clear).all(axis=2)
    assert blank.any()
    found = shown(content, background="grey")
    assert (found[blank] == 128).all()
    assert np.abs(found - values * (255 / (2**depth - 1)))[~blank].max() <= 1


def test_a_16_bit_shade_is_compared_in_16_bits():
    values = np.full((SIDE, SIDE, 3), 300, np.uint16)
    values[0] = 301
    found = shown(png(values, 16, (b"tRNS", struct.pack(">HHH", 300, 300, 300))))
    assert (found[0] == 1).all()
    assert (found[1:] == 255).all()


@pytest.mark.parametrize("bands", [1, 3])
def test_colours_of_16_bits_are_spread_like_grey(bands):
    values = (DEEP[..., :bands] >> 8) + 1000
    low, high = np.percentile(values, (0.5, 99.5))
    found = shown(png(values, 16), sixteen_bit="stretch")
    assert np.abs(found - ((values - low) * 255 / (high - low)).clip(0, 255)).max() <= 1
    assert shown(png(values, 16)).max() <= 5
    window = shown(png(values, 16), sixteen_bit=(1000, 1100))
    assert np.abs(window - ((values - 1000.0) * 2.55).clip(0, 255)).max() <= 1


@pytest.mark.parametrize("white", [255, 256, 1023, 4095, 65534, 65535])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("plain", [False, True])
def test_pnm_of_any_range(white, bands, plain):
    values = (DEEP[..., :bands].astype(int) % (white + 1)).astype(">u2" if white > 255 else np.uint8)
    values[0, 0], values[0, 1] = 0, white
    kind = {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[bands, plain]
    head = f"P{kind} # made here\n# twice\n{SIDE} {SIDE}\n{white}\n".encode()
    body = " ".join(map(str, values.reshape(-1).tolist())).encode() if plain else values.tobytes()
    assert np.abs(shown(head + body) - values * (255 / white)).max() <= 1
    window = shown(head + body, sixteen_bit=(0, 128))
    if white > 255:
        assert np.abs(window - (values * (255 / 128)).clip(0, 255)).max() <= 1
    with pytest.raises(Refused, match="damaged"):
        decode((head + body)[: -len(body) // 2], SIDE, 3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bands", [1, 3])
def test_pfm(order, bands):
    values = (DEEP[..., :bands] / 7 - 3).astype(order + "f4")
    head = f"P{'f' if bands == 1 else 'F'}\n{SIDE} {SIDE}\n{-1.0 if order == '<' else 1.0}\n".encode()
    low, high = np.percentile(values, (0.5, 99.5))
    expected = ((values - low) * 255 / (high - low)).clip(0, 255)
    assert np.abs(shown(head + values[::-1].tobytes()) - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("bands", [1, 3])
def test_jpeg_2000_of_any_depth(bits, bands):
    values = (DEEP[..., :bands] >> (16 - bits)).astype(np.uint8 if bits == 8 else np.uint16)
    for form in ("jp2", "j2k"):
        content = imagecodecs.jpeg2k_encode(values.squeeze(), bitspersample=bits, codecformat=form, reversible=True)
        assert np.abs(shown(bytes(content)) - values * (255 / (2**bits - 1))).max() <= 1, form


def test_a_damaged_png_of_16_bits():
    content = png(DEEP, 16)
    with pytest.raises(Refused, match="damaged"):
        decode(content[:-200], SIDE, 3)
    spoilt = bytearray(content)
    spoilt[len(spoilt) // 2] ^= 255
    with pytest.raises(Refused, match="damaged"):
        decode(bytes(spoilt), SIDE, 3)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
@pytest.mark.parametrize("late", [False, True])
def test_large_texts_do_not_cost_the_image(kind, late):
    squeezed = zlib.compress(bytes(200 * 2**20))
    between = {"zTXt": b"note\0\0", "iTXt": b"note\0\1\0\0\0", "iCCP": b"profile\0\0"}[kind]
    item = (kind.encode(), between + squeezed)
    values = np.asarray(scene(SIDE, SIDE))
    content = png(values, 8, after=chunk(*item)) if late else png(values, 8, item)
    assert (shown(content) == values).all()


def test_many_texts_and_broken_chunks_do_not_cost_the_image():
    values = np.asarray(scene(SIDE, SIDE))
    many = PngImagePlugin.PngInfo()
    for number in range(70):
        many.add_text(f"note {number}", "x" * 2**20, zip=True)
    assert (shown(encoded(Image.fromarray(values), "PNG", pnginfo=many)) == values).all()
    for name in (b"sRGB", b"pHYs", b"cHRM", b"gAMA", b"tIME"):
        assert (shown(png(values, 8, (name, b""))) == values).all(), name


def test_jpegs_of_other_kinds_are_no_damage():
    deep = DEEP[..., 0]
    for content in (imagecodecs.jpeg8_encode(deep >> 4, bitspersample=12), imagecodecs.ljpeg_encode(deep)):
        with pytest.raises(Refused, match=r"^not supported: (lossless|JPEG of 12 bits)"):
            decode(bytes(content), SIDE, 3)
    lossless = (deep >> 8).astype(np.uint8)
    assert (decode(bytes(imagecodecs.ljpeg_encode(lossless)), SIDE, 1).pixels[0] == lossless).all()


def test_inks_of_a_jpeg_are_stored_turned_round():
    inks = scene(SIDE, SIDE).convert("CMYK")
    assert np.abs(shown(encoded(inks, "JPEG", quality=100)) - np.asarray(scene(SIDE, SIDE))).mean() < 4


@pytest.mark.parametrize("alpha", [0, 8])
def test_tga_says_whether_it_has_alpha(tmp_path, alpha):
    values = np.asarray(scene(SIDE, SIDE).convert("RGBA")).copy()
    values[..., 3] = 0
    content = bytearray(encoded(Image.fromarray(values), "TGA"))
    content[17] = (content[17] & 0xF0) | alpha
    found = decode(write(tmp_path / "a.tga", bytes(content)), SIDE, 3, background="black").pixels
    assert (found == (0 if alpha else values[..., :3].transpose(2, 0, 1))).all()


MORE = [scene(SIDE, SIDE, seed=number) for number in (1, 2)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 95}), ("MPO", {"quality": 95})],
)
def test_frames_that_are_left_out_are_counted(kind, options):
    content = encoded(scene(SIDE, SIDE), kind, save_all=True, append_images=MORE, **options)
    decoded = decode(content, SIDE, 3)
    assert decoded.pages == 2
    assert np.abs(decoded.pixels.astype(int) - np.asarray(scene(SIDE, SIDE)).transpose(2, 0, 1)).mean() < 12
    assert decode(encoded(scene(SIDE, SIDE), kind, **options), SIDE, 3).pages == 0


def test_frames_cut_off_after_the_first():
    content = encoded(scene(SIDE, SIDE), "GIF", save_all=True, append_images=MORE)
    assert decode(content[:-300], SIDE, 3).width == SIDE


# What the file holds, in full: the hash by which images are compared.


def held(picture: bytes | np.ndarray, **settings) -> str:
    found = decode(picture, 4, 1, **settings)
    return found.content


def test_pictures_that_differ_only_in_what_is_not_kept_are_no_copies():
    dark = [png(np.full((SIDE, SIDE, 1), 90 + number, np.uint16), 16) for number in range(20)]
    assert len({held(content) for content in dark}) == 20
    deep = [png(np.full((SIDE, SIDE, 3), 90 + number, np.uint16), 16) for number in range(20)]
    assert len({held(content) for content in deep}) == 20
    large = []
    for number in range(8):
        values = np.full((64, 64, 3), 200, np.uint8)
        values[number, 5] = 201
        large.append(encoded(Image.fromarray(values), "PNG"))
    assert len({held(content) for content in large}) == 8
    luma = [np.full((4, 4, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 130, 0), (76, 76, 76))]
    assert len({held(values) for values in luma}) == 3
    drawn = []
    for number in range(5):
        values = np.zeros((SIDE, SIDE, 4), np.uint8)
        values[number, :, :] = 255
        drawn.append(encoded(Image.fromarray(values), "PNG"))
    assert len({held(content, background="white") for content in drawn}) == 5


def test_large_jpegs_that_differ_in_their_details_are_no_copies():
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 40 + 100).astype(np.uint8)
    one, other = (encoded(Image.fromarray(values), "JPEG", quality=95) for values in (board, board[::-1, :]))
    assert (decode(one, 4, 1).pixels == decode(other, 4, 1).pixels).all()
    assert held(one) != held(other)


def test_the_same_picture_in_another_file_is_a_copy():
    image = scene(SIDE, SIDE)
    lossless = [
        encoded(image, "PNG"),
        encoded(image, "BMP"),
        encoded(image, "TIFF"),
        encoded(image, "PNG", compress_level=0),
    ]
    lossless.append(encoded(image.convert("RGBA"), "PNG"))
    turned = Image.Exif()
    turned[0x0112] = 6
    lossless.append(encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=turned))
    assert len({held(content) for content in lossless}) == 1
    grey = image.convert("L")
    wide = np.asarray(grey)[..., None].astype(np.uint16) * 257
    assert len({held(encoded(grey, "PNG")), held(encoded(grey.convert("RGB"), "PNG")), held(png(wide, 16))}) == 1
    hidden = [Image.new("RGBA", (SIDE, SIDE), (shade, 0, 0, 0)) for shade in (0, 255)]
    assert len({held(encoded(item, "PNG")) for item in hidden}) == 1
    large = scene(400, 400)
    tagged = encoded(large, "JPEG", exif=Image.Exif(), comment=b"a note", icc_profile=b"x" * 99)
    assert held(encoded(large, "JPEG")) == held(tagged)


def test_what_was_not_looked_at_in_full_equals_the_same_bytes_only():
    assert held(encoded(scene(SIDE, SIDE), "AVIF")) == ""


def test_used_range():
    dark = decode(png(np.arange(256, dtype=np.uint16).reshape(16, 16, 1) + 90, 16), 16, 1).used
    assert dark is not None
    assert (dark.white, round(dark.low), round(dark.high)) == (65535, 91, 344)
    assert decode(png(DEEP[..., :1] >> 8, 8), 16, 1).used is None
