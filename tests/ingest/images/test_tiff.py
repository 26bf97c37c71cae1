from __future__ import annotations

import io
import itertools
import os
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
import tiffs
from data_fixtures import encoded, scene
from PIL import Image
from tiffs import Page, tiff

from sslflow.ingest.images.decode import Refused, decode

SIDE = 12
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, LAB, CFA, LINEAR = 0, 1, 2, 3, 4, 5, 6, 8, 32803, 34892


def some(bands: int, bits: int = 8, seed: int = 0) -> np.ndarray:
    """Values over the whole range of unsigned integers of `bits`, both ends among them."""
    kind = np.min_scalar_type(2**bits - 1)
    values = np.random.default_rng(seed).integers(0, 2**bits, (SIDE, SIDE, bands), kind, endpoint=False)
    values[0, 0], values[-1, -1] = 0, 2**bits - 1
    return values


def eight(values: np.ndarray, bits: int) -> np.ndarray:
    """Of unsigned integers, as 8 bits."""
    return np.floor(values.astype(float) * 255 / (2**bits - 1) + 0.5)


def spread(values: np.ndarray) -> np.ndarray:
    """Of anything else: from the 0.5 to the 99.5 percentile."""
    low, high = np.percentile(values.astype(float), (0.5, 99.5))
    return np.floor(((values.astype(float) - low) * 255 / (high - low)).clip(0, 255) + 0.5)


def shown(content: bytes, **settings) -> np.ndarray:
    """`(height, width, 3)`, at the file's own size."""
    return decode(content, SIDE, 3, **settings).pixels.transpose(1, 2, 0).astype(float)


def close(found: np.ndarray, expected: np.ndarray, most: float = 1.0) -> bool:
    return bool((np.abs(found - expected) <= most).all())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [*range(1, 17)])
@pytest.mark.parametrize(("photometric", "bands"), [(WHITE_IS_ZERO, 1), (BLACK_IS_ZERO, 1), (RGB, 3)])
def test_every_depth_in_every_grey_and_colour(order, bits, photometric, bands):
    values = some(bands, bits)
    expected = eight(values, bits)
    if photometric == WHITE_IS_ZERO:
        expected = 255 - expected
    for planar, tile, rows in ((1, 0, 0), (1, 0, 5), (2, 0, 5), (1, 16, 0), (2, 16, 0)):
        content = tiff(Page(values, photometric, bits, planar=planar, tile=tile, rows=rows), order=order)
        assert close(shown(content), expected), (planar, tile, rows)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize(("photometric", "bands"), [(WHITE_IS_ZERO, 1), (BLACK_IS_ZERO, 1), (RGB, 3)])
def test_what_has_no_white_of_its_own_is_spread(order, kind, photometric, bands):
    values = (some(bands, 7).astype(float) * (1 if kind in ("i1", "u4", "u8") else -0.7)).astype(kind)
    expected = spread(values)
    if photometric == WHITE_IS_ZERO:
        expected = 255 - expected
    for planar, compression in ((1, tiffs.NONE), (2, tiffs.NONE), (1, tiffs.DEFLATE)):
        page = Page(values, photometric, 8 * values.dtype.itemsize, planar=planar, compression=compression)
        assert close(shown(tiff(page, order=order)), expected), (planar, compression)


LOSSLESS = [
    tiffs.NONE,
    tiffs.LZW,
    tiffs.DEFLATE,
    tiffs.OLD_DEFLATE,
    tiffs.PACKBITS,
    tiffs.LZMA,
    tiffs.ZSTD,
]


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize(
    ("kind", "predictor"),
    [("u1", 1), ("u2", 1), ("u4", 1), ("f4", 1), ("f8", 1), ("u1", 2), ("u2", 2), ("u4", 2), ("f4", 3), ("f8", 3)],
)
def test_every_compression_and_predictor(compression, kind, predictor):
    predictor = 1 if compression in (tiffs.NONE, tiffs.PACKBITS) else predictor
    bits = 8 * np.dtype(kind).itemsize
    for bands, planar, order, tile in itertools.product((1, 3), (1, 2), ("<", ">"), (0, 16)):
        values = some(bands, min(bits, 16)).astype(kind)
        page = Page(values, RGB if bands == 3 else 1, bits, None, planar, compression, predictor, tile=tile, rows=5)
        expected = eight(values, bits) if bits < 32 else spread(values)
        assert close(shown(tiff(page, order=order)), expected), (bands, planar, order, tile)


@pytest.mark.parametrize(("photometric", "bands"), [(WHITE_IS_ZERO, 1), (BLACK_IS_ZERO, 1), (RGB, 3), (YCBCR, 3)])
@pytest.mark.parametrize("tile", [0, 16])
def test_jpeg_in_tiff(photometric, bands, tile):
    image = (
        np.asarray(scene(SIDE, SIDE)).copy() if bands == 3 else np.asarray(scene(SIDE, SIDE).convert("L"))[..., None]
    )
    content = tiff(Page(image, photometric, compression=tiffs.JPEG, tile=tile))
    assert close(shown(content), 255.0 - image if photometric == WHITE_IS_ZERO else image, 6)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("written", [16, 8])
def test_palettes(bits, written):
    index = some(1, bits)
    colours = some(3, 8, seed=1).reshape(-1, 3)[np.arange(2**bits) % (SIDE * SIDE)]
    stored = colours.astype(np.uint16) * (257 if written == 16 else 1)
    content = tiff(Page(index, PALETTE, bits, more=[(320, 3, stored.T.reshape(-1).tolist())]))
    assert (shown(content) == colours[index[..., 0]]).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [1, 2])
def test_cmyk(bits, planar):
    inks = some(4, bits)
    share = inks / (2**bits - 1)
    expected = 255 * (1 - share[..., :3]) * (1 - share[..., 3:])
    assert close(shown(tiff(Page(inks, CMYK, bits, planar=planar))), expected, 1.5)


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize(("bands", "extra"), [(1, 1), (1, 2), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("planar", [1, 2])
def test_extra_samples(kind, bands, extra, planar):
    bits = 8 * np.dtype(kind).itemsize
    white = 1.0 if kind == "f4" else 2**bits - 1
    share = np.linspace(0.3, 1, SIDE * SIDE).reshape(SIDE, SIDE, 1)
    share[:4] = 0
    colour = some(bands, 8) / 255
    stored = np.concatenate([colour * share if extra == 1 else colour, share], axis=2) * white
    values = stored.astype(kind) if kind == "f4" else np.round(stored).astype(kind)
    content = tiff(Page(values, RGB if bands == 3 else 1, bits, planar=planar, extra=[extra]))
    for background, shade in (("white", 255), ("black", 0)):
        seen = colour if extra == 0 or kind != "f4" else colour[share[..., 0] > 0]
        bright = spread(seen) if kind == "f4" and extra == 0 else 255 * colour
        if kind == "f4" and extra:
            low, high = np.percentile(seen, (0.5, 99.5))
            bright = ((colour - low) / (high - low)).clip(0, 1) * 255
        expected = bright if extra == 0 else bright * share + shade * (1 - share)
        assert close(shown(content, background=background), expected, 3 if extra == 1 else 2), background
    assert decode(content, SIDE, 3).bands == (extra == 0)


def test_bands_beside_the_colours_are_counted():
    values = some(6)
    decoded = decode(tiff(Page(values, RGB, extra=[0, 2, 0])), SIDE, 3, background="black")
    share = values[..., 4:5] / 255
    assert close(decoded.pixels.transpose(1, 2, 0).astype(float), values[..., :3] * share)
    assert (decoded.pages, decoded.bands) == (0, 2)


@pytest.mark.parametrize(
    ("values", "nodata", "blank"),
    [
        (some(1), b"0\0", some(1)[..., 0] == 0),
        (some(3), b"255", (some(3) == 255).all(axis=2)),
        (np.where(some(1) < 99, np.float32(-3.4028234663852886e38), some(1)), b"-3.4028234663852886e+38", None),
        (np.where(some(1) < 99, np.nan, some(1)).astype("f8"), b"nan", None),
        (np.where(some(1) < 99, np.int16(-9999), some(1)), b"-9999 ", None),
    ],
)
def test_no_data_is_laid_over_the_background(values, nodata, blank):
    whole = values.dtype == np.uint8
    blank = some(1)[..., 0] < 99 if blank is None else blank
    page = Page(values, RGB if values.shape[2] == 3 else 1, 8 * values.dtype.itemsize, more=[(42113, 2, nodata)])
    for background, shade in (("white", 255), ("black", 0)):
        found = shown(tiff(page), background=background)
        assert (found[blank] == shade).all()
        expected = values[~blank] if whole else spread(values[~blank])
        assert close(found[~blank], expected)


def test_no_data_that_is_no_number_is_none():
    values = some(1)
    for text in (b"\0", b"none\0", b"1e999\0", b"inf\0"):
        assert close(shown(tiff(Page(values, more=[(42113, 2, text)]))), values)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("compression", [tiffs.NONE, tiffs.PACKBITS, tiffs.LZW])
def test_bits_turned_round(bits, compression):
    values = some(1, bits)
    assert close(shown(tiff(Page(values, 1, bits, compression=compression, fill=2))), eight(values, bits))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_large_files_have_a_layout_of_their_own(big, order):
    values = some(3, 16)
    assert close(shown(tiff(Page(values, RGB, 16), order=order, big=big)), eight(values, 16))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    upright = np.asarray(scene(SIDE, SIDE)).astype(np.uint16) * 257
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    page = Page(np.ascontiguousarray(turned), RGB, 16, more=[(274, 3, [orientation])])
    assert close(shown(tiff(page)), upright / 257)


T = Image.Transpose
TURNS = (
    *(T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM),
    *(T.TRANSPOSE, T.ROTATE_270, T.TRANSVERSE, T.ROTATE_90),
)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["group4", "raw"])
def test_scanned_pages_and_ycbcr_are_turned_once(orientation, compression):
    page = scene(SIDE, SIDE).convert("1") if compression == "group4" else scene(SIDE, SIDE).convert("YCbCr")
    target = io.BytesIO()
    page.save(target, "TIFF", compression=compression, tiffinfo={274: orientation, 530: (1, 1)})
    expected = page
    if orientation > 1:
        expected = page.transpose(TURNS[orientation - 2])
    assert close(shown(target.getvalue()), np.asarray(expected.convert("RGB")), 2)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "packbits"])
@pytest.mark.parametrize("inverted", [False, True])
def test_scanned_pages(compression, inverted):
    page = scene(SIDE, SIDE).convert("1")
    tags = {262: int(not inverted)}
    target = io.BytesIO()
    page.save(target, "TIFF", compression=compression, tiffinfo=tags)
    with Image.open(target) as stored:
        expected = np.asarray(stored.convert("RGB"))
    assert close(shown(target.getvalue()), expected, 0)


@pytest.mark.parametrize("kind", ["jpeg", "tiff_lzw", "tiff_adobe_deflate"])
def test_what_another_writer_writes(kind):
    image = scene(SIDE, SIDE)
    for mode in ("L", "RGB", "RGBA", "CMYK", "P"):
        if kind == "jpeg" and mode in ("RGBA", "P"):
            continue
        content = encoded(image.convert(mode), "TIFF", compression=kind)
        with Image.open(io.BytesIO(content)) as stored:
            expected = np.asarray(stored.convert("RGB"))
        assert close(shown(content), expected, 3 if kind == "jpeg" else 1), mode


@pytest.mark.parametrize("compression", ["jpeg2000", "webp", "jpegxl", "lerc", "lzw", "zstd"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("layout", [{"tile": (16, 16)}, {"rowsperstrip": 5}, {"planarconfig": "separate"}])
def test_what_the_library_writes(compression: str, kind: str, layout: dict[str, Any]):
    if compression == "webp":
        kind, layout = "u1", {"tile": (16, 16)}
    values = np.asarray(scene(SIDE, SIDE)).astype(kind) * np.array(257 if kind == "u2" else 1, kind)
    stored = values.transpose(2, 0, 1) if "planarconfig" in layout else values
    target = io.BytesIO()
    tifffile.imwrite(target, stored, photometric="rgb", compression=compression, **layout)
    assert close(shown(target.getvalue()), np.asarray(scene(SIDE, SIDE)))


def first(count: int = 3, **options) -> list[Page]:
    return [Page(some(1, seed=number), **options) for number in range(count)]


def test_pages_are_counted():
    pages = first(3)
    decoded = decode(tiff(*pages), SIDE, 1)
    assert (decoded.pixels[0] == pages[0].values[..., 0]).all()
    assert decoded.pages == 2


def test_smaller_copies_are_no_pages():
    copy = Page(some(1, seed=5)[:6, :6], more=[(254, 4, [1])])
    large = Page(some(1))
    for content in (tiff(large, copy), tiff(copy, large), tiff(large, sub=[copy]), tiff(copy, sub=[large])):
        decoded = decode(content, SIDE, 1)
        assert (decoded.pixels[0] == large.values[..., 0]).all()
        assert decoded.pages == 0


def test_a_stack_of_imagej_has_one_directory():
    planes = np.stack([some(1, 16, seed=number) for number in range(4)])
    description = b"ImageJ=1.53k\nimages=4\nslices=4\nloop=false\n\0"
    content = tiff(Page(planes[0], bits=16, more=[(270, 2, description)]), order=">")
    whole = content + planes[1:].astype(">u2").tobytes()
    decoded = decode(whole, SIDE, 1)
    assert close(decoded.pixels[0].astype(float), eight(planes[0, ..., 0], 16))
    assert decoded.pages == 3


def test_planes_of_ome_are_counted():
    xml = (
        b'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        b'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="12" SizeY="12" SizeC="3" SizeZ="1"'
        b' SizeT="1">'
        b'<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>\0'
    )
    pages = first(3)
    decoded = decode(tiff(Page(pages[0].values, more=[(270, 2, xml)]), *pages[1:]), SIDE, 1)
    assert (decoded.pixels[0] == pages[0].values[..., 0]).all()
    assert decoded.pages == 2


REFUSED = [
    (Page(some(8), RGB), "TIFF with 8 bands of uint8"),
    (Page(some(8), 1, extra=[0] * 7), "TIFF with 8 bands of uint8"),
    (Page(some(2, 16), 1, 16, extra=[0]), "TIFF with 2 bands of uint16"),
    (Page(some(4), RGB), "TIFF with 4 bands of uint8"),
    (Page(some(3), 1), "TIFF with 3 bands of uint8"),
    (Page(some(2), RGB), "TIFF with 2 bands of uint8"),
    (Page(some(3), LAB), "TIFF with 3 bands of uint8, PhotometricInterpretation CIELAB"),
    (Page(some(1), MASK), "PhotometricInterpretation MASK"),
    (Page(some(1, 16), CFA, 16), "raw file"),
    (Page(some(3, 16), LINEAR, 16), "raw file"),
    (Page(some(1), 777), "PhotometricInterpretation 777"),
    (Page(some(1), None), "PhotometricInterpretation is missing"),
    (Page(some(1, 24), 1, 24), "TIFF with 1 band of uint24"),
    (Page(some(1, 20), 1, 20), "TIFF with 1 band of uint20"),
    (Page(some(1).astype("c8"), 1, 64), "TIFF with 1 band of complex64"),
    (Page(some(1).astype("c16"), 1, 128), "TIFF with 1 band of complex128"),
    (Page(some(1, 16), 1, 32, format=5), "complex int32"),
    (Page(some(1), 1, format=4), "undefined8"),
    (Page(some(1, 12), 1, 12, format=2), "int12"),
    (Page(some(4), CMYK, more=[(332, 3, [2])]), "SEPARATED"),
    (Page(some(5), CMYK), "SEPARATED"),
    (Page(some(3), RGB, more=[(258, 3, [5, 6, 5])]), "TIFF with 3 bands of 5, 6, 5 bits"),
    (Page(some(2), 1, extra=[2], more=[(339, 3, [1, 2])]), "TIFF with bands of several kinds"),
    (Page(some(1), compression=32809), "compressed by THUNDERSCAN"),
    (Page(some(1), compression=34661), "compressed by JBIG"),
    (Page(some(1), compression=12345), "compressed by 12345"),
    (Page(some(1, 4), 1, 4, compression=tiffs.DEFLATE, more=[(317, 3, [2])]), "with a predictor"),
    (Page(some(3), YCBCR), "PhotometricInterpretation YCBCR"),
    (Page(some(1), compression=tiffs.PACKBITS, predictor=2), "with a predictor"),
    (Page(some(3), RGB, more=[(50706, 1, [1, 4, 0, 0])]), "raw file"),
]


@pytest.mark.parametrize(("page", "reason"), REFUSED)
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_is_refused_by_its_tags(page, reason, order):
    with pytest.raises(Refused, match=f"not supported.*{reason}"):
        decode(tiff(page, order=order), SIDE, 3)


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("cut", [2, 40, 100])
def test_truncated_is_damaged(compression, cut):
    content = tiff(Page(some(3), RGB, compression=compression, rows=5))
    start = int.from_bytes(content[4:8], "little")
    cut_off = content[: start - cut] + bytes(cut) + content[start:]
    if compression in (tiffs.DEFLATE, tiffs.OLD_DEFLATE, tiffs.LZMA):  # these have a checksum
        with pytest.raises(Refused, match="damaged"):
            decode(cut_off, SIDE, 3)
    with pytest.raises(Refused, match="damaged: truncated"):
        decode(directory_first(content)[:-cut], SIDE, 3)


def directory_first(content: bytes) -> bytes:
    """The same file with its directory before its strips."""
    start = int.from_bytes(content[4:8], "little")
    head, moved = bytearray(content[start:]), len(content) - start
    for place in range(2, 2 + 12 * struct.unpack_from("<H", head)[0], 12):
        tag, kind, count, value = struct.unpack_from("<HHII", head, place)
        if {1: 1, 2: 1, 3: 2, 4: 4}[kind] * count > 4:
            struct.pack_into("<I", head, place + 8, value - start + 8)
            value -= start
        if tag == 273:
            places = [value + 4 * item for item in range(count)] if count > 1 else [place + 8]
            for spot in places:
                struct.pack_into("<I", head, spot, struct.unpack_from("<I", head, spot)[0] + moved)
    return content[:4] + struct.pack("<I", 8) + bytes(head) + content[8:start]


def test_parts_that_were_never_written():
    page = Page(some(1), rows=6, more=[(273, 4, [0, 8]), (279, 4, [0, 72])])
    with pytest.raises(Refused, match="damaged: parts of the image were never written"):
        decode(tiff(page), SIDE, 1)
    short = Page(some(1), rows=6, more=[(273, 4, [8]), (279, 4, [72])])
    with pytest.raises(Refused, match="damaged: parts of the image are not there"):
        decode(tiff(short), SIDE, 1)


@pytest.mark.parametrize("compression", LOSSLESS)
def test_what_claims_to_be_enormous_is_not_decoded(compression):
    page = Page(some(1), compression=compression, more=[(256, 4, [60_000]), (257, 4, [60_000]), (278, 4, [60_000])])
    with pytest.raises(Refused, match="too large: 60000 x 60000"):
        decode(tiff(page), SIDE, 1)
    tiles = Page(some(1), compression=compression, tile=16, more=[(322, 4, [2**20]), (323, 4, [2**20])])
    with pytest.raises(Refused, match="too large"):
        decode(tiff(tiles), SIDE, 1)


def test_a_strip_that_swells_is_not_unpacked():
    """4 GB in a strip for 144 bytes, read by a process with less memory."""
    script = (
        "import resource, sys; from sslflow.ingest.images.decode import decode, Refused\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "try: print('read', decode(sys.stdin.buffer.read(), 12, 1).width)\n"
        "except Refused as reason: print(reason)"
    )
    squeeze = zlib.compressobj(9)
    first = squeeze.compress(bytes(2**24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    second = squeeze.compress(bytes(2**24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    swelling = first + 255 * second
    content = tiff(Page(some(1), compression=tiffs.DEFLATE, more=[(279, 4, [len(swelling)])]))
    strip = content[8 : int.from_bytes(content[4:8], "little")]
    content = directory_first(content)[: -len(strip)] + swelling
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], input=content, capture_output=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.startswith((b"read 12", b"damaged"))
