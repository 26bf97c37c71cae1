"""Any TIFF: the picture that its tags describe, or a refusal in words; SSLFLOW_EXAMPLES=20000 looks longer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import tiffs
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tiffs import Page, tiff

from sslflow.ingest.images.decode import Decoded, Refused, decode

EXAMPLES = int(os.environ.get("SSLFLOW_EXAMPLES", "150"))
SIDE = 9
BITS = {"u": [*range(1, 17), 20, 24, 32, 64], "i": [8, 12, 16, 32, 64], "f": [16, 32, 64], "c": [64, 128]}
WHOLE = (8, 16, 32, 64)
GREY = (0, 1)
LOSSLESS = (1, tiffs.LZW, tiffs.DEFLATE, tiffs.PACKBITS, tiffs.OLD_DEFLATE, tiffs.LZMA, tiffs.ZSTD)


@dataclass(frozen=True)
class Drawn:
    """A file, the colours that it should show, and whether a refusal is right as well."""

    content: bytes = field(repr=False)
    shown: np.ndarray | None = field(repr=False)
    """`(side, side, 3)`, 0 to 255; None: a refusal is right."""
    pages: int
    bands: int
    may_be_refused: bool
    words: str


@st.composite
def values(draw, kind: str, bits: int, bands: int) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "u":
        whole = rng.integers(0, 2**bits, (SIDE, SIDE, bands), np.uint64, endpoint=False) if bits < 64 else None
        whole = rng.integers(0, 2**64 - 1, (SIDE, SIDE, bands), np.uint64) if whole is None else whole
        narrow = draw(st.booleans())
        whole = whole >> np.uint64(draw(st.integers(0, bits - 1))) if narrow else whole
        return whole.astype(np.min_scalar_type(2**bits - 1))
    if kind == "i":
        size = 8 * -(-bits // 8)
        size = next(width for width in WHOLE if width >= size)
        return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (SIDE, SIDE, bands), np.int64).astype(
            f"i{size // 8}"
        )
    scale = (
        draw(st.sampled_from([1e-3, 1.0, 300.0]))
        if bits == 16
        else draw(st.sampled_from([1e-12, 1e-3, 1.0, 65535.0, 1e12]))
    )
    real = rng.normal(draw(st.sampled_from([0.0, 1.0, 50.0])), 1, (SIDE, SIDE, bands)) * scale
    if kind == "f" and draw(st.booleans()):
        real[rng.random(real.shape) < 0.1] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return real.astype(f"{kind}{bits // 8}")


def spread(array: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """From the 0.5 to the 99.5 percentile of what is seen."""
    sample = array[seen].astype(float)
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, (0.5, 99.5))
    if high <= low:
        return np.zeros(array.shape)
    exact = (array.astype(np.longdouble) - np.longdouble(low)) * (255 / (high - low))
    return np.nan_to_num(exact.astype(float), nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)


@st.composite
def files(draw) -> Drawn:
    kind = draw(st.sampled_from("uuuuuuuuuuiiiffffc"))
    bits = draw(st.sampled_from(BITS[kind]))
    photometric = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 5, 5, 6, 4, 8, 32803, 34892, None]))
    colours = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 32803: 1, 34892: 3, None: 1}[photometric]
    extra = draw(st.lists(st.sampled_from([0, 1, 2]), max_size=2)) if draw(st.booleans()) else []
    array = draw(values(kind, bits, colours + len(extra)))
    compression = draw(st.sampled_from([*LOSSLESS, *LOSSLESS, 1, 1, 32809, 34661]))
    predictor = draw(st.sampled_from([1, 1, 2 if kind != "f" else 3]))
    if bits not in WHOLE:
        predictor = 1
    planar = draw(st.sampled_from([1, 2]))
    layout = {"tile": 16} if draw(st.booleans()) else {"rows": draw(st.integers(0, SIDE))}
    more: list[tiffs.Tag] = []
    orientation = draw(st.sampled_from([None, 1, 2, 3, 4, 5, 6, 7, 8]))
    if orientation:
        more.append((274, 3, [orientation]))
    palette = None
    if photometric == 3:
        palette = np.random.default_rng(bits).integers(0, 256, (min(2**bits, 2**16), 3)).astype(np.uint16) * 257
        if bits <= 16:
            more.append((320, 3, palette.T.reshape(-1).tolist()))
    if photometric == 6:
        more.append((530, 3, [1, 1]))
    nodata = None
    if draw(st.booleans()) and kind in "ui" and bits in WHOLE and photometric in (*GREY, 2) and bits < 64:
        nodata = int(array[tuple(draw(st.tuples(*[st.integers(0, SIDE - 1)] * 2)))][0])
        more.append((42113, 2, f"{nodata}\0".encode()))
    page = Page(array, photometric, bits, None, planar, compression, predictor, extra, more=more, **layout)
    others = [Page(array[:5, :7]) for _ in range(draw(st.integers(0, 2))) if array.dtype == np.uint8]
    order, big = draw(st.sampled_from("<>")), draw(st.booleans())
    content = tiff(page, *others, order=order, big=big)
    words = (
        f"{kind}{bits} photometric {photometric} extra {extra} {compression}/{predictor} {planar} {layout} {order}{big}"
    )
    readable = (
        kind != "c"
        and (bits in WHOLE if kind != "u" else bits in (*range(1, 17), 32, 64))
        and photometric in (0, 1, 2, 3, 5, 6)
        and (kind == "u" or photometric not in (3, 5))
        and (photometric not in (3, 5) or bits <= 16)
        and (photometric != 6 or (kind, bits) == ("u", 8))
        and compression not in (32809, 34661)
        and (predictor == 1 or compression not in (1, tiffs.PACKBITS))
        and (colours > 1 or not extra or any(extra))
        and not (any(extra) and kind == "i")
        and not (1 in extra and photometric not in (1, 2))
    )
    if not readable:
        return Drawn(content, None, 0, 0, True, words)
    shown, finite = picture(array, kind, bits, photometric, colours, extra, palette, nodata)
    if orientation:
        shown = upright(shown, orientation)
    alpha = any(extra)
    return Drawn(content, shown if finite else None, len(others), len(extra) - alpha, not finite, words)


def picture(array, kind, bits, photometric, colours, extra, palette, nodata) -> tuple[np.ndarray, bool]:
    """What is to be seen on white, and whether there is anything finite to be seen."""
    colour = array[..., :colours]
    place = next((number for number, one in enumerate(extra) if one), None)
    share = np.ones((SIDE, SIDE, 1))
    white = 2**bits - 1 if kind == "u" and bits <= 16 else None
    if place is not None:
        full = white or (1 if kind == "f" else float(np.iinfo(array.dtype).max))
        with np.errstate(all="ignore"):
            share = np.nan_to_num((array[..., colours + place :][..., :1].astype(float) / full).clip(0, 1))
            if extra[place] == 1:
                colour = colour.astype(float) * np.where(share > 0, full / array[..., colours + place :][..., :1], 0)
                if kind != "f":
                    colour = np.minimum(colour, full)
    share = np.round(share * 255) / 255
    if nodata is not None:
        share = np.where((array[..., :colours] == nodata).all(axis=2, keepdims=True), 0, share)
    seen = share[..., 0] > 0 if (share > 0).any() else np.ones((SIDE, SIDE), bool)
    if photometric == 3:
        shown = (palette >> 8)[array[..., 0].astype(int)].astype(float)
    elif photometric == 6:
        luma, blue, red = (colour[..., band : band + 1].astype(float) for band in range(3))
        parts = [1.402 * (red - 128), -0.344136 * (blue - 128) - 0.714136 * (red - 128), 1.772 * (blue - 128)]
        shown = luma + np.concatenate(parts, axis=2)
        shown = shown.clip(0, 255)
    elif photometric == 5:
        inks = colour.astype(float) / (white or 1)
        shown = 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])
    elif white:
        shown = colour * (255 / white)
    else:
        if not np.isfinite(colour[seen].astype(float)).any():
            return np.zeros((SIDE, SIDE, 3)), False
        shown = spread(colour, seen)
    if photometric == 0:
        shown = 255 - shown
    return np.broadcast_to(shown * share + 255 * (1 - share), (SIDE, SIDE, 3)), True


def upright(shown: np.ndarray, orientation: int) -> np.ndarray:
    """As the tag says: where row 0 and column 0 are."""
    turned = shown.transpose(1, 0, 2) if orientation > 4 else shown
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return turned[::rows, ::columns]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SSLFLOW_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(files())
def test_any_tiff_is_read_right_or_refused(drawn):
    decoded, reason = read(drawn.content)
    if decoded is None:
        event("refused")
        assert drawn.may_be_refused, f"{drawn.words}: {reason}"
        assert reason.startswith(("not supported: ", "no finite value")), f"{drawn.words}: {reason}"
        return
    event("read")
    assert drawn.shown is not None, drawn.words
    found = decoded.pixels.transpose(1, 2, 0)
    assert np.abs(found - drawn.shown).max() <= 2.01, drawn.words
    assert (decoded.pages, decoded.bands) == (drawn.pages, drawn.bands), drawn.words


def read(content: bytes) -> tuple[Decoded | None, str]:
    try:
        return decode(content, SIDE, 3), ""
    except Refused as reason:
        return None, str(reason)
