"""A file, of whatever kind of picture, opened as 8 bits."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cache
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from sslflow.ingest.images import deep
from sslflow.ingest.images.files import Refused, regular_file
from sslflow.ingest.images.hashes import hashed
from sslflow.ingest.images.kinds import HEAD, RAW, READ, by_content, by_ending
from sslflow.ingest.images.raster import Raster, SixteenBit, Used, eight_bit
from sslflow.ingest.images.tiff import read_tiff
from sslflow.ingest.records import Picture

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Opened:
    """What a file holds, not yet upright."""

    image: Image.Image
    """Of mode L, RGB or RGBA."""
    width: int
    height: int
    orientation: int = 1
    content: str | None = None
    """Hash of what the file holds; `""`: not all of it was looked at; None: `image` holds all of it."""
    used: Used | None = None
    pages: int = 0
    bands: int = 0


def open_picture(picture: Picture, size: int, sixteen_bit: SixteenBit, max_pixels: int) -> Opened:
    """A large JPEG is reduced as it is read, to no less than twice `size`. Raises `Refused`, and for what is damaged
    nearly anything."""
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
        return Opened(_canonical(image), *image.size)
    with io.BytesIO(picture) if isinstance(picture, bytes) else regular_file(picture) as handle:
        kind = _kind(handle, getattr(picture, "name", ""))
        handle.seek(0)
        if kind == "TIFF":
            return _of_raster(read_tiff(handle, max_pixels), sixteen_bit)
        if kind == "PNM" and (raster := deep.pnm(handle.read())):
            _check_size(raster.values.shape[1], raster.values.shape[0], max_pixels)
            return _of_raster(raster, sixteen_bit)
        try:
            return _by_pillow(handle, kind, size, sixteen_bit, max_pixels)
        except Refused:
            raise
        except ValueError:
            if kind != "PNG":
                raise
            handle.seek(0)  # what stands beside the pixels may be broken, or too large
            bare = io.BytesIO(deep.png_picture(handle.read()))
            return _by_pillow(bare, kind, size, sixteen_bit, max_pixels)


def _kind(handle: BinaryIO, name: str) -> str:
    """One of the kinds that are read. Raises `Refused` for others."""
    (found, start), claimed = by_content(handle), by_ending(name)
    if not start:
        raise Refused("empty file")
    if found == "TIFF" and claimed == RAW:
        found = RAW
    if not found and claimed == "TGA":  # older ones have no signature
        found = claimed
    if found in READ:
        return found
    if found or (claimed and claimed not in READ):
        raise Refused(f"not supported: {found or claimed}; convert it to PNG or TIFF first")
    if start[4:8] == b"ftyp":
        raise Refused("not supported: a video (MP4 or QuickTime)")
    raise Refused(f"not an image of a supported kind: begins with {start[:16]!r}")


def _by_pillow(handle: BinaryIO, kind: str, size: int, sixteen_bit: SixteenBit, max_pixels: int) -> Opened:
    with _image(handle, kind) as image:
        width, height = image.size
        _check_size(width, height, max_pixels)
        raster = _deep(image, handle, kind)
        if raster is not None:
            raster = replace(raster, orientation=_orientation(image), pages=_further(image))
            return _of_raster(raster, sixteen_bit)
        content = None
        if kind == "JPEG":
            # the decoder may halve as it reads, while twice what is needed remains
            image.draft(None, (2 * size, 2 * size))
            if image.size != (width, height):
                content = hashed(_orientation(image), deep.jpeg_picture(_all(handle))).hex()
        elif kind == "AVIF" or image.info.get("bit_depth", 8) > 8:
            content = ""
        image.load()
        if kind == "TGA" and _without_alpha(handle):
            image = image.convert("RGB")
        whole = _canonical(image)
        return Opened(whole, width, height, _orientation(image), content, pages=_further(image))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Refused(f"too large: {width} x {height} pixels, more than max_pixels = {max_pixels}")
    if width < 1 or height < 1:
        raise Refused(f"no pixels: {width} x {height}")


def _image(handle: BinaryIO, kind: str) -> Image.Image:
    if kind == "HEIC" and not _reads_heic():
        raise Refused("not supported: HEIC; install pillow-heif, which reads it, or convert it first")
    try:
        return Image.open(handle, formats=(READ[kind], "DIB") if kind == "BMP" else (READ[kind],))
    except UnidentifiedImageError:
        other = deep.jpeg_kind(_all(handle)) if kind == "JPEG" else ""
        if other:
            raise Refused(f"not supported: {other}") from None
        raise Refused(f"damaged: begins like {kind}, but its header can't be read") from None


@cache
def _reads_heic() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _deep(image: Image.Image, handle: BinaryIO, kind: str) -> Raster | None:
    """What Pillow would not give in full."""
    if kind == "PNG":
        start = _all(handle, HEAD)
        shade = image.mode in ("1", "L") and "transparency" in image.info
        return deep.png(_all(handle)) if start[24] == 16 or shade else None
    if kind == "JPEG 2000":
        return deep.jpeg2000(_all(handle))
    return None


def _all(handle: BinaryIO, count: int = -1) -> bytes:
    handle.seek(0)
    return handle.read(count)


def _without_alpha(handle: BinaryIO) -> bool:
    """Whether a TGA has colours and says that it has no alpha, even where it has room for it."""
    start = _all(handle, 18)
    return start[2] in (2, 10) and not start[17] & 15


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # metadata may be broken in as many ways as there are cameras; the pixels are fine
        return 1


def _further(image: Image.Image) -> int:
    """Frames or pages after the first."""
    try:
        return getattr(image, "n_frames", 1) - 1
    except Exception:  # they are broken
        return 0


def _of_raster(raster: Raster, sixteen_bit: SixteenBit) -> Opened:
    image, used = eight_bit(raster, sixteen_bit)
    content = None
    if raster.white is None or raster.white > 255:
        values = np.ascontiguousarray(raster.values)
        alpha = b"" if raster.alpha is None else raster.alpha.tobytes()
        shape = (*values.shape, values.dtype.str, raster.white, raster.inverted, raster.orientation)
        as_eight = raster.white == 65535 and sixteen_bit == "full" and not (values % 257).any()
        content = None if as_eight else hashed(shape, values, alpha).hex()
    return Opened(_canonical(image), *image.size, raster.orientation, content, used, raster.pages, raster.bands)


def _canonical(image: Image.Image) -> Image.Image:
    """As L, RGB or RGBA."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
