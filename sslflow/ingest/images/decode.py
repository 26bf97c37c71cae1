"""One image file of any kind to uint8 pixels of one size; docs/data.md has the table. Imports no torch."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from sslflow.ingest.images import deep
from sslflow.ingest.images.files import Refused, regular_file
from sslflow.ingest.images.kinds import HEAD, RAW, READ, by_ending, by_start
from sslflow.ingest.images.raster import Raster, SixteenBit, Used, eight_bit
from sslflow.ingest.images.tiff import read_tiff
from sslflow.ingest.records import Picture

Fit = Literal["crop", "pad", "stretch"]
Background = Literal["white", "black", "grey"]

MAX_PIXELS = 100_000_000

_SHADES = {"white": 255, "grey": 128, "black": 0}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = {_TURNS[number] for number in (5, 6, 7, 8)}
_ORIENTATION = 0x0112
_UNSUPPORTED = re.compile("unsupported|not supported|not implemented|cannot handle", re.IGNORECASE)


@dataclass(frozen=True)
class Decoded:
    """Prepared pixels, and what the file held before: its size as it is looked at (after the EXIF rotation)."""

    pixels: np.ndarray
    """uint8 `(channels, size, size)`."""
    width: int
    height: int
    content: str = ""
    """Hash of the picture that the file holds, in full size and depth, hexadecimal. `""`: not all of it was looked at,
    so that it is known to equal files of the same bytes only."""
    used: Used | None = None
    """Where a sample has more than 8 bits."""
    pages: int = 0
    """Pages, frames or planes that are left out."""
    bands: int = 0
    """Bands that are left out."""


def decode(
    picture: Picture,
    size: int,
    channels: int,
    *,
    fit: Fit = "crop",
    background: Background = "white",
    sixteen_bit: SixteenBit = "full",
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """The image as uint8 `(channels, size, size)`, channels 1 (grey) or 3 (RGB). Raises `Refused` with the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow warns of odd metadata and of size; size is checked here, before decoding
        try:
            return _prepared(_opened(picture, size, sixteen_bit, max_pixels), size, channels, fit, _SHADES[background])
        except Refused:
            raise
        except MemoryError:
            raise Refused("needs more memory than there is") from None
        except Image.DecompressionBombError:
            raise Refused(f"too large: more than max_pixels = {max_pixels}") from None
        except Exception as error:  # broken files make decoders raise nearly anything
            words = " ".join(str(error).split()) or type(error).__name__
            raise Refused(f"{'not supported' if _UNSUPPORTED.search(words) else 'damaged'}: {words}") from None


@dataclass(frozen=True)
class _Opened:
    """What a file holds, not yet upright."""

    image: Image.Image
    """Of mode L, RGB or RGBA."""
    width: int
    height: int
    orientation: int = 1
    content: str | None = None
    """As in `Decoded`; None: `image` holds all of it."""
    used: Used | None = None
    pages: int = 0
    bands: int = 0


def _opened(picture: Picture, size: int, sixteen_bit: SixteenBit, max_pixels: int) -> _Opened:
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
        return _Opened(_canonical(image), *image.size)
    with io.BytesIO(picture) if isinstance(picture, bytes) else regular_file(picture) as handle:
        kind = _kind(handle.read(HEAD), picture.name if isinstance(picture, Path) else "")
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


def _kind(start: bytes, name: str) -> str:
    """One of the kinds that are read. Raises `Refused` for others."""
    if not start:
        raise Refused("empty file")
    found, claimed = by_start(start), by_ending(name)
    if found == "TIFF" and claimed == RAW:
        found = RAW
    if not found and claimed == "TGA":  # it has no signature
        found = claimed
    if found in READ:
        return found
    if found or (claimed and claimed not in READ):
        raise Refused(f"not supported: {found or claimed}; convert it to PNG or TIFF first")
    if start[4:8] == b"ftyp":
        raise Refused("not supported: a video (MP4 or QuickTime)")
    raise Refused(f"not an image of a supported kind: begins with {start[:16]!r}")


def _by_pillow(handle: BinaryIO, kind: str, size: int, sixteen_bit: SixteenBit, max_pixels: int) -> _Opened:
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
                content = _hash(_orientation(image), deep.jpeg_picture(_all(handle)))
        elif kind == "AVIF" or image.info.get("bit_depth", 8) > 8:
            content = ""
        image.load()
        if kind == "TGA" and _without_alpha(handle):
            image = image.convert("RGB")
        whole = _canonical(image)
        return _Opened(whole, width, height, _orientation(image), content, pages=_further(image))


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


def _of_raster(raster: Raster, sixteen_bit: SixteenBit) -> _Opened:
    image, used = eight_bit(raster, sixteen_bit)
    content = None
    if raster.white is None or raster.white > 255:
        values = np.ascontiguousarray(raster.values)
        alpha = b"" if raster.alpha is None else raster.alpha.tobytes()
        shape = (*values.shape, values.dtype.str, raster.white, raster.inverted, raster.orientation)
        as_eight = raster.white == 65535 and sixteen_bit == "full" and not (values % 257).any()
        content = None if as_eight else _hash(shape, values.tobytes(), alpha)
    return _Opened(_canonical(image), *image.size, raster.orientation, content, used, raster.pages, raster.bands)


def _canonical(image: Image.Image) -> Image.Image:
    """As L, RGB or RGBA."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")


def _hash(facts: object, *contents: bytes) -> str:
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def _prepared(opened: _Opened, size: int, channels: int, fit: Fit, shade: int) -> Decoded:
    image, turn = opened.image, _TURNS.get(opened.orientation)
    shown = (opened.height, opened.width) if turn in _SWAPPING else (opened.width, opened.height)
    content = _content(image, turn) if opened.content is None else opened.content
    if image.mode == "RGBA":
        ground = Image.new("RGB", image.size, (shade, shade, shade))
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    fitted = _fitted(image.convert("L" if channels == 1 else "RGB"), size, fit, turn, shade)
    pixels = np.asarray(fitted, np.uint8).reshape(size, size, channels).transpose(2, 0, 1)
    return Decoded(np.ascontiguousarray(pixels), *shown, content, opened.used, opened.pages, opened.bands)


def _content(image: Image.Image, turn: Image.Transpose | None) -> str:
    """Of a picture of 8 bits, upright. Grey is as good as the same in colour, and what can't be seen is nothing."""
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "RGBA":
        alpha = image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            image = image.convert("RGB")
        else:
            seen = Image.new("RGBA", image.size)
            seen.paste(image, mask=alpha.point([0] + [255] * 255))
            image = seen
    elif image.mode == "L":
        image = image.convert("RGB")
    return _hash((image.mode, image.size), image.tobytes())


def _fitted(image: Image.Image, size: int, fit: Fit, turn: Image.Transpose | None, shade: int) -> Image.Image:
    """Resized to `size` squared, then turned upright: the same as the other way round, and cheaper."""
    width, height = image.size
    box, target = (0.0, 0.0, float(width), float(height)), (size, size)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    elif fit == "pad":
        target = (max(1, round(size * width / max(width, height))), max(1, round(size * height / max(width, height))))
    if image.size != target or box != (0, 0, width, height):
        image = image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if turn is not None:
        image = image.transpose(turn)
    if image.size == (size, size):
        return image
    ground = Image.new(image.mode, (size, size), shade if image.mode == "L" else (shade,) * 3)
    ground.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return ground
