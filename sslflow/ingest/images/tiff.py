"""A page of a TIFF file, read as its tags say; what they leave open, or what isn't read right, is refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import numpy as np
from PIL import Image
from tifffile import PHOTOMETRIC, TiffFile, TiffPage

from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.raster import Raster

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs each odd tag; what matters is checked here

_GREY = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)
_DIVISIBLE = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
_LOSSLESS = frozenset([1, 5, 8, 32773, 32946, 34925, 34926, 50000])
_PREDICTED = _LOSSLESS - {1, 32773}
_DECODED = _LOSSLESS | {7, 33005, 34712, 34887, 50001, 50002}
_BY_PILLOW = frozenset([2, 3, 4, 6, 32771])
"""Facsimile, and JPEG as it was before 1995: libtiff reads them."""
_KINDS = {1: "uint", 2: "int", 3: "float", 4: "undefined", 5: "complex int", 6: "complex"}
_WHOLE = (8, 16, 32, 64)
_NODATA, _GEO = 42113, (33550, 33922, 34264, 34735, 42112, 42113)
_ORIENTATION, _DNG, _INK, _SUBSAMPLING, _REFERENCE = 274, 50706, 332, 530, 532
_BYTES = 32
"""So many for each of `max_pixels` may an image take, or `_ALWAYS`."""
_ALWAYS = 2**26


def read_tiff(handle: BinaryIO, max_pixels: int) -> Raster:
    """The first page in full size. Raises `Refused` for what isn't supported or larger than `max_pixels`, and nearly
    anything for what is damaged."""
    with _file(handle) as file:
        page, number, pages = _page(file)
        _check(page, max_pixels)
        if page.compression in _BY_PILLOW:
            return _by_pillow(handle, page, number, pages)
        values = _values(page, file.filehandle.size)
    return _raster(page, values, pages)


def _file(handle: BinaryIO) -> TiffFile:
    try:
        return TiffFile(handle, name="image", is_ome=False)
    except TypeError:  # tifffile can't name a kind of sample for each band
        raise Refused("not supported: TIFF with bands of several kinds") from None


def _page(file: TiffFile) -> tuple[TiffPage, int, int]:
    """The first page that is no smaller copy of another, its number, and how many more there are."""
    full = [(number, page) for number, page in enumerate(_pages(file)) if not page.is_reduced]
    if not full:
        first = file.pages.first
        full = [(-1, page) for page in first.pages or () if isinstance(page, TiffPage) and not page.is_reduced]
        full = full or [(0, first)]
    number, page = full[0]
    planes = page.imagedepth
    if file.is_imagej or file.is_stk or file.is_shaped:  # one directory may stand for many planes
        with suppress(Exception):
            planes = max(planes, max(series.size for series in file.series) // page.size)
    return page, number, max(len(full), planes) - 1


def _pages(file: TiffFile) -> Iterator[TiffPage]:
    for number in range(len(file.pages)):
        page = file.pages[number]
        if isinstance(page, TiffPage):
            yield page


def _check(page: TiffPage, max_pixels: int) -> None:
    width, height, bands, bits = page.imagewidth, page.imagelength, page.samplesperpixel, page.bitspersample
    if width * height > max_pixels:
        raise Refused(f"too large: {width} x {height} pixels, more than max_pixels = {max_pixels}")
    if width < 1 or height < 1:
        raise Refused(f"no pixels: {width} x {height}")
    if _DNG in page.tags or page.photometric in (PHOTOMETRIC.CFA, PHOTOMETRIC.LINEAR_RAW):
        raise Refused("not supported: a camera's raw file (TIFF or DNG); export it as TIFF or JPEG")
    what = f"TIFF with {bands} band{'s' * (bands > 1)} of {_kind(page)}"
    if page.compression not in _DECODED | _BY_PILLOW:
        raise Refused(f"not supported: TIFF compressed by {_name(page.compression)}")
    whole = bits in _WHOLE or (page.sampleformat == 1 and bits in range(1, 17))
    if page.dtype is None or page.sampleformat not in (1, 2, 3) or not whole:
        raise Refused(f"not supported: {what}")
    if page.compression not in _LOSSLESS and page.compression in (6, 7, 50001) and bits != 8:
        raise Refused(f"not supported: {what}, compressed by {_name(page.compression)}")
    if page.predictor != 1 and (page.compression not in _PREDICTED or bits not in _WHOLE):
        raise Refused(f"not supported: {what} with a predictor, compressed by {_name(page.compression)}")
    if 262 not in page.tags and page.compression != 6:
        raise Refused(f"not supported: {what}; its tags don't say what they are (PhotometricInterpretation is missing)")
    colours = _colours(page)
    if not colours or bands != colours + len(page.extrasamples):
        raise Refused(f"not supported: {what}, PhotometricInterpretation {_name(page.photometric)}")
    if colours == 1 and bands > 1 and not any(page.extrasamples):
        raise Refused(f"not supported: {what}; its tags don't say what they are")
    opacity = set(page.extrasamples) & {1, 2}
    if opacity and (page.sampleformat == 2 or (1 in opacity and page.photometric not in _DIVISIBLE)):
        raise Refused(f"not supported: {what}, one of them opacity")
    area = max(width * height, page.tilewidth * page.tilelength)
    if area * bands * page.dtype.itemsize > max(_BYTES * max_pixels, _ALWAYS):
        raise Refused(f"too large: {what}, {width} x {height} pixels")


def _colours(page: TiffPage) -> int:
    """Bands that make up the colour; 0 where that isn't supported."""
    if page.photometric in _GREY or (page.photometric == PHOTOMETRIC.PALETTE and _white(page)):
        return 1
    if page.photometric == PHOTOMETRIC.RGB:
        return 3
    if page.photometric == PHOTOMETRIC.SEPARATED and page.tags.valueof(_INK, 1) == 1 and _white(page):
        return 4
    if page.photometric == PHOTOMETRIC.YCBCR and _white(page) == 255 and (page.compression in (6, 7) or _plain(page)):
        return 3
    return 0


def _kind(page: TiffPage) -> str:
    """Of a sample: uint16, float32."""
    bits = page.bitspersample
    if not isinstance(bits, int):
        return f"{', '.join(map(str, bits))} bits"
    return f"{_KINDS.get(int(page.sampleformat), f'kind {page.sampleformat}, ')}{bits}"


def _name(value: int) -> str:
    return getattr(value, "name", str(value))


def _values(page: TiffPage, size: int) -> np.ndarray:
    """`(height, width, bands)` as they are stored."""
    chunks = int(np.prod(page.chunked))
    offsets, counts = page.dataoffsets[:chunks], page.databytecounts[:chunks]
    if len(offsets) < chunks or len(counts) < chunks:
        raise Refused("damaged: parts of the image are not there")
    sparse = sum(not (offset and count) for offset, count in zip(offsets, counts, strict=True))
    if sparse == chunks or (sparse and not any(tag in page.tags for tag in _GEO)):
        raise Refused("damaged: parts of the image were never written")
    if page.is_contiguous:
        end = offsets[0] + page.nbytes
    else:
        end = max(offset + count for offset, count in zip(offsets, counts, strict=True))
    if end > size:
        raise Refused(f"damaged: truncated, {end - size} bytes are missing")
    values = page.asarray(squeeze=False, maxworkers=1)[:, 0]
    values = values[0] if values.shape[0] == 1 else np.moveaxis(values[..., 0], 0, -1)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _raster(page: TiffPage, values: np.ndarray, pages: int) -> Raster:
    colours = _colours(page)
    white = _white(page)
    extra = [int(kind) for kind in page.extrasamples]
    opaque = next((place for place, kind in enumerate(extra) if kind in (1, 2)), None)
    left_out = len(extra) - (opaque is not None)
    colour, alpha = values[..., :colours], None
    if opaque is not None:
        share = values[..., colours + opaque]
        full = white or (1 if share.dtype.kind == "f" else np.iinfo(share.dtype).max)
        alpha = np.round(np.clip(share / full, 0, 1) * 255).astype(np.uint8)
        if extra[opaque] == 1:
            colour = _divided(colour, share, full)
            white = white and max(white, 255)
    blank = _blank(page, values[..., :colours])
    if blank is not None:
        alpha = np.where(blank, 0, 255 if alpha is None else alpha).astype(np.uint8)
    if page.photometric == PHOTOMETRIC.PALETTE:
        colour, white = _painted(page, colour), 255
    elif page.photometric == PHOTOMETRIC.YCBCR and page.compression != 7:
        height, width, _ = colour.shape
        colour = np.asarray(Image.frombytes("YCbCr", (width, height), colour.tobytes()).convert("RGB"))
    elif colour.dtype == bool:
        colour = colour.astype(np.uint8)
    inverted = page.photometric == PHOTOMETRIC.MINISWHITE
    return Raster(colour, white, alpha, inverted, _orientation(page), pages, left_out)


def _white(page: TiffPage) -> int | None:
    whole = page.sampleformat == 1 and isinstance(page.bitspersample, int) and page.bitspersample <= 16
    return 2**page.bitspersample - 1 if whole else None


def _orientation(page: TiffPage) -> int:
    value = page.tags.valueof(_ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def _divided(colour: np.ndarray, share: np.ndarray, full: float) -> np.ndarray:
    """The colours that were stored multiplied by their opacity; of less than 8 bits, in 8."""
    true = colour * np.divide(full, share, out=np.zeros(share.shape), where=share > 0)[..., None]
    if colour.dtype.kind == "f" or colour.dtype.itemsize > 2:
        return np.minimum(true, full) if colour.dtype.kind == "u" else true
    if full < 255:
        return np.round(np.minimum(true / full, 1) * 255).astype(np.uint8)
    return np.minimum(np.round(true), full).astype(colour.dtype)


def _blank(page: TiffPage, colour: np.ndarray) -> np.ndarray | None:
    """Where all bands have the value that stands for no data."""
    try:
        value = float(str(page.tags.valueof(_NODATA, "")).strip("\0 ").replace(",", "."))
    except ValueError:
        return None
    if np.isnan(value):
        return np.all(np.isnan(colour), axis=2) if colour.dtype.kind == "f" else None
    return np.all(colour == (colour.dtype.type(value) if colour.dtype.kind == "f" else value), axis=2)


def _painted(page: TiffPage, index: np.ndarray) -> np.ndarray:
    """The colours that a palette gives to its numbers, uint8 `(height, width, 3)`."""
    colours = page.colormap
    if colours is None or int(index.max(initial=0)) >= colours.shape[1]:
        raise Refused("damaged: colours of the palette are missing")
    if colours.max(initial=0) > 255:  # some programs write 8 bits instead of 16
        colours = colours >> 8
    return colours.astype(np.uint8)[:, index[..., 0].astype(np.intp)].transpose(1, 2, 0)


def _plain(page: TiffPage) -> bool:
    """Whether YCbCr is laid out and scaled as in JPEG."""
    reference = page.tags.valueof(_REFERENCE, (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1))
    scaled = [top / bottom for top, bottom in zip(reference[::2], reference[1::2], strict=True)]
    return tuple(page.tags.valueof(_SUBSAMPLING, (2, 2))) == (1, 1) and scaled == [0, 255, 128, 255, 128, 255]


def _by_pillow(handle: BinaryIO, page: TiffPage, number: int, pages: int) -> Raster:
    """What libtiff reads and tifffile doesn't, of 1 bit or 8 bits a sample."""
    what = f"TIFF of colours {_name(page.photometric)}, compressed by {_name(page.compression)}"
    if number < 0 or page.bitspersample not in (1, 8) or page.extrasamples:
        raise Refused(f"not supported: {what}")
    handle.seek(0)
    with Image.open(handle, formats=("TIFF",)) as image:
        image.seek(number)
        if image.mode not in ("1", "L", "RGB", "YCbCr"):
            raise Refused(f"not supported: {what}")
        values = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        orientation = image.getexif().get(_ORIENTATION, 1)  # 1 where Pillow has turned it by now
    values = values.reshape(*values.shape[:2], -1)
    return Raster(values, 255, orientation=orientation, pages=pages)
