"""What kind of picture a file is: by its first bytes, or else by its ending."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from sslflow.ingest.images.files import Refused, regular_file

HEAD = 512
"""So many bytes from the beginning tell the kind."""

READ: Mapping[str, str] = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WebP": "WEBP",
    "GIF": "GIF",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "AVIF": "AVIF",
    "HEIC": "HEIF",
    "JPEG 2000": "JPEG2000",
    "PNM": "PPM",
    "TGA": "TGA",
    "QOI": "QOI",
    "PCX": "PCX",
    "ICO": "ICO",
}
"""The kinds that are read, with Pillow's names of them."""

_TGA_END = b"TRUEVISION-XFILE.\0"
RAW = "a camera's raw file"
_ENDINGS = {
    "JPEG": "jpg jpeg jpe jfif mpo jps",
    "PNG": "png apng",
    "WebP": "webp",
    "GIF": "gif",
    "BMP": "bmp dib",
    "TIFF": "tif tiff gtif gtiff btf tf8 svs ndpi lsm stk qptiff",
    "AVIF": "avif avifs",
    "HEIC": "heic heif heics heifs hif",
    "JPEG 2000": "jp2 j2k j2c jpc jpf jpx",
    "PNM": "pnm pbm pgm ppm pfm",
    "TGA": "tga icb vda vst",
    "QOI": "qoi",
    "PCX": "pcx",
    "ICO": "ico",
    RAW: "dng nef nrw cr2 cr3 crw arw srf sr2 orf rw2 raf pef srw x3f 3fr fff iiq kdc dcr mrw erf mef mos",
    "DICOM": "dcm dicom",
    "NIfTI": "nii nii.gz",
    "FITS": "fits fit fts",
    "Photoshop": "psd psb",
    "OpenEXR": "exr",
    "JPEG XL": "jxl",
    "JPEG XR": "jxr wdp hdp",
    "DDS": "dds",
    "SVG": "svg svgz",
    "EPS": "eps epsf",
    "WMF or EMF": "wmf emf",
    "GIMP": "xcf",
    "SGI": "sgi",
    "Sun raster": "ras",
    "ICNS": "icns",
    "PAM": "pam",
    "XPM": "xpm",
    "XBM": "xbm",
    "JPEG-LS": "jls",
    "DjVu": "djvu djv",
    "NRRD": "nrrd",
    "MetaImage": "mha mhd",
    "Zeiss CZI": "czi",
    "Leica LIF": "lif",
    "Nikon ND2": "nd2",
    "Olympus OIB": "oib oif",
    "MIRAX": "mrxs",
    "BPG": "bpg",
    "FLIF": "flif",
}
_BY_ENDING = {f".{ending}": kind for kind, endings in _ENDINGS.items() for ending in endings.split()}
_BY_START = [
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\xff\xd8\xff\xf7", "JPEG-LS"),
        (rb"\xff\xd8\xff", "JPEG"),
        (rb"\x89PNG\r\n\x1a\n", "PNG"),
        (rb"RIFF....WEBP", "WebP"),
        (rb"GIF8[79]a", "GIF"),
        (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
        (rb"(II\*\0.{4}CR|IIU\0|IIR[OS]|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR)", RAW),
        (rb"....ftypcrx ", RAW),
        (rb"(II[*+]\0|MM\0[*+])", "TIFF"),
        (rb"....ftypavi[fs]", "AVIF"),
        (rb"....ftyp(hei[cxms]|hev[cmxs]|mif[12]|msf1|j2k[is])", "HEIC"),
        (rb"(\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)", "JPEG 2000"),
        (rb"P7\s+WIDTH\s", "PAM"),
        (rb"(P[1-6]|P[fF])\s+(#|\d)", "PNM"),
        (rb"qoif", "QOI"),
        (rb"\x0a[\0\x02\x03\x05]\x01[\x01\x02\4\x08]", "PCX"),
        (rb"\0\0\x01\0[\x01-\x40]\0...\0[\0\x01]\0", "ICO"),
        (rb".{128}DICM", "DICOM"),
        (rb".{344}n[+i]1\0", "NIfTI"),
        (rb"SIMPLE  =", "FITS"),
        (rb"8BPS\0[\x01\x02]", "Photoshop"),
        (rb"\x76\x2f\x31\x01", "OpenEXR"),
        (rb"#\?(RADIANCE|RGBE)", "Radiance HDR"),
        (rb"(\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n)", "JPEG XL"),
        (rb"II\xbc", "JPEG XR"),
        (rb"DDS \x7c\0\0\0", "DDS"),
        (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?((<!DOCTYPE svg[^>]*>|<!--.*?-->)\s*)*<svg[\s/>]", "SVG"),
        (rb"(%!PS-Adobe-\S+ EPSF|\xc5\xd0\xd3\xc6)", "EPS"),
        (rb"(\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF)", "WMF or EMF"),
        (rb"gimp xcf ", "GIMP"),
        (rb"\x01\xda[\0\x01][\x01\x02]\0[\x01\x02\x03]", "SGI"),
        (rb"\x59\xa6\x6a\x95", "Sun raster"),
        (rb"icns", "ICNS"),
        (rb"/\* XPM \*/", "XPM"),
        (rb"AT&TFORM....DJV", "DjVu"),
        (rb"NRRD000", "NRRD"),
        (rb"ZISRAWFILE", "Zeiss CZI"),
        (rb"\xda\xce\xbe\x0a", "Nikon ND2"),
        (rb"BPG\xfb", "BPG"),
        (rb"FLIF", "FLIF"),
    )
]


def by_start(start: bytes) -> str:
    """The kind of picture that begins with these bytes (`HEAD` of them, or the whole file), or `""`."""
    return next((kind for pattern, kind in _BY_START if pattern.match(start)), "")


def by_content(handle: BinaryIO) -> tuple[str, bytes]:
    """The kind of picture that a file holds, or `""`, and its first bytes."""
    start = handle.read(HEAD)
    kind = by_start(start)
    if not kind and len(start) > len(_TGA_END):
        handle.seek(-len(_TGA_END), os.SEEK_END)
        kind = "TGA" if handle.read() == _TGA_END else ""
    return kind, start


def by_ending(name: str) -> str:
    """The kind of picture that a file's name claims, or `""`."""
    suffixes = Path(name.lower()).suffixes
    return _BY_ENDING.get("".join(suffixes[-2:]), "") or _BY_ENDING.get("".join(suffixes[-1:]), "")


def is_picture(file: Path) -> bool:
    """Whether a file is a picture by its ending or, where that is none of a picture, by its content."""
    if by_ending(file.name):
        return True
    try:
        with regular_file(file) as handle:
            return bool(by_content(handle)[0])
    except (Refused, OSError):
        return False
