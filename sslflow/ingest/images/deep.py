"""Other kinds than TIFF where Pillow would give 8 bits of more, or lose the transparent colour."""

from __future__ import annotations

import re

import numpy as np

from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.raster import Raster

_PICTURE = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PFM = re.compile(rb"P([Ff])\s+(\d+)\s+(\d+)\s+(-?[\d.]+(?:[eE][-+]?\d+)?)\s")
_PNM = re.compile(rb"P([2356])" + _SPACE + rb"(\d+)" + _SPACE + rb"(\d+)" + _SPACE + rb"(\d+)\s")


def png(content: bytes) -> Raster:
    """A PNG of any depth, palettes expanded."""
    import imagecodecs  # large, and most pictures need none of it

    values = imagecodecs.png_decode(content)
    values = values.reshape(*values.shape[:2], -1)
    white, bands = np.iinfo(values.dtype).max, values.shape[2]
    if bands in (1, 3):
        return Raster(values, white)
    alpha = np.round(values[..., -1] / (white / 255)).astype(np.uint8)
    return Raster(np.ascontiguousarray(values[..., :-1]), white, alpha)


def png_picture(content: bytes) -> bytes:
    """A PNG without what stands beside its pixels: texts, profiles, times."""
    kept, place = [content[:8]], 8
    while place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4])
        name = content[place + 4 : place + 8]
        if name[:1].isupper() or name in _PICTURE:
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def pnm(content: bytes) -> Raster | None:
    """A PGM or PPM of more than 8 bits, or a PFM; None for others."""
    found = _PFM.match(content)
    if found:
        bands, (width, height), order = 1 + 2 * (found[1] == b"F"), (int(found[2]), int(found[3])), float(found[4])
        values = np.frombuffer(content, "<f4" if order < 0 else ">f4", width * height * bands, found.end())
        return Raster(values.astype(np.float32).reshape(height, width, bands)[::-1], None)
    found = _PNM.match(content)
    kind, width, height, white = (int(number) for number in found.groups()) if found else (0, 0, 0, 0)
    if found is None or not 255 < white < 65536:
        return None
    bands = 1 if kind in (2, 5) else 3
    count = width * height * bands
    if kind in (2, 3):
        values = np.array(re.sub(rb"#[^\n]*", b"", content[found.end() :]).split()[:count], np.int64)
    else:
        values = np.frombuffer(content, ">u2", count, found.end())
    if len(values) < count:
        raise Refused("damaged: truncated")
    if values.max(initial=0) > white:
        raise Refused(f"damaged: a value is larger than {white}, the largest that its header allows")
    return Raster(values.astype(np.uint16).reshape(height, width, bands), white)


def jpeg2000(content: bytes) -> Raster | None:
    """A JPEG 2000 of more than 8 bits; None for others. Raises `Refused` for colours other than grey and RGB."""
    size = content.find(b"\xff\x4f\xff\x51")
    bands = int.from_bytes(content[size + 40 : size + 42])
    depths = content[size + 42 : size + 42 + 3 * bands : 3]
    bits = max(((depth & 127) + 1 for depth in depths), default=0)
    if size < 0 or bits <= 8:
        return None
    colours = content.find(b"colr", 0, size)
    space = int.from_bytes(content[colours + 7 : colours + 11]) if colours > 0 and content[colours + 4] == 1 else 0
    if bands not in (1, 3) or len(set(depths)) > 1 or bits > 16 or space not in (0, 16, 17):
        raise Refused(f"not supported: JPEG 2000 with {bands} bands of {bits} bits")
    import imagecodecs

    values = imagecodecs.jpeg2k_decode(content)
    signed = depths[0] & 128
    return Raster(values.reshape(*values.shape[:2], bands), None if signed else 2**bits - 1)


def jpeg_kind(content: bytes) -> str:
    """Why a JPEG that Pillow can't open isn't supported, or `""` where it is damaged."""
    place = 2
    while content[place : place + 1] == b"\xff":
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
                return "lossless or hierarchical JPEG"
            bits = content[place + 4 : place + 5]
            return f"JPEG of {bits[0]} bits a sample" if bits and bits[0] != 8 else ""
        place += 2 + length
    return ""


def jpeg_picture(content: bytes) -> bytes:
    """The parts of a JPEG that its pixels depend on: what stands beside them (EXIF, profile, comment) is left out."""
    kept, place = [], 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] != b"\xda":
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4])
        if not (0xE0 <= content[place + 1] <= 0xED or content[place + 1] in (0xEF, 0xFE)):
            kept.append(content[place:end])
        place = end
    return b"".join([*kept, content[place:]])
