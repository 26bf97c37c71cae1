from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
from data_fixtures import encoded, scene, write
from PIL import Image
from tiffs import Page, tiff

from sslflow.ingest.images import opened
from sslflow.ingest.images.decode import Refused, decode
from sslflow.ingest.images.folders import folder, imagefolder
from sslflow.ingest.images.kinds import by_ending, by_start, is_picture
from sslflow.ingest.records import Other, Record

PICTURE = scene(24, 24)
EXACT = np.asarray(PICTURE).transpose(2, 0, 1).astype(int)


def heic() -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return encoded(PICTURE, "HEIF", quality=95)


READABLE = {
    "a.jpg": encoded(PICTURE, "JPEG", quality=95),
    "a.png": encoded(PICTURE, "PNG"),
    "a.webp": encoded(PICTURE, "WEBP", lossless=True),
    "a.gif": encoded(PICTURE, "GIF"),
    "a.bmp": encoded(PICTURE, "BMP"),
    "a.tif": encoded(PICTURE, "TIFF"),
    "a.avif": encoded(PICTURE, "AVIF", quality=95),
    "a.jp2": encoded(PICTURE, "JPEG2000"),
    "a.j2k": encoded(PICTURE, "JPEG2000", no_jp2=True),
    "a.ppm": encoded(PICTURE, "PPM"),
    "a.tga": encoded(PICTURE, "TGA"),
    "a.qoi": encoded(PICTURE, "QOI"),
    "a.pcx": encoded(PICTURE, "PCX"),
    "a.ico": encoded(PICTURE, "ICO", sizes=[(24, 24)]),
    "a.heic": heic(),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_is_read_by_its_ending_and_by_its_content(tmp_path, name):
    for place in (name, name.upper()):
        file = write(tmp_path / place, READABLE[name])
        assert is_picture(file)
        found = decode(file, 24, 3)
        assert (found.width, found.height) == (24, 24)
        assert np.abs(found.pixels - EXACT).mean() < {"a.gif": 12, "a.heic": 8}.get(name, 3)


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize(
    "called",
    ["{0}.1", "{0}~", "{0}?width=200", "{0}_large", "{0}.part", "{0}.bak", "photo", "{0} (1)", "x.txt", "x.dat"],
)
def test_endings_with_something_behind_them_are_told_by_content(tmp_path, name, called):
    file = write(tmp_path / called.format(name), READABLE[name])
    assert is_picture(file)
    assert np.abs(decode(file, 24, 3).pixels - EXACT).mean() < 12
    assert [type(item) for item in folder(tmp_path).records()] == [Record]


UNREADABLE = {
    "scan.dcm": (bytes(128) + b"DICM" + bytes(99), "DICOM"),
    "scan": (bytes(128) + b"DICM" + bytes(99), "DICOM"),
    "brain.nii": (struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(9), "NIfTI"),
    "brain.nii.gz": (b"\x1f\x8b\x08" + bytes(30), "NIfTI"),
    "sky.fits": (b"SIMPLE  =                    T", "FITS"),
    "layers.psd": (b"8BPS\0\1" + bytes(40), "Photoshop"),
    "light.exr": (b"\x76\x2f\x31\x01\2\0\0\0", "OpenEXR"),
    "light.hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance"),
    "small.jxl": (b"\xff\x0a" + bytes(40), "JPEG XL"),
    "small": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    "bark.dds": (b"DDS \x7c\0\0\0" + bytes(40), "DDS"),
    "logo.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "logo": (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg/>", "SVG"),
    "logo.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
    "IMG_1.CR2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "a camera's raw file"),
    "IMG_2.CR3": (b"\0\0\0\x18ftypcrx " + bytes(40), "a camera's raw file"),
    "IMG_3.NEF": (b"MM\0*" + bytes(40), "a camera's raw file"),
    "IMG_4.raf": (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
    "IMG_5.orf": (b"IIRO\x08\0\0\0", "a camera's raw file"),
    "IMG_6.dng": (tiff(Page(np.zeros((4, 4, 1), np.uint8))), "a camera's raw file"),
    "cells.czi": (b"ZISRAWFILE" + bytes(40), "Zeiss CZI"),
    "cells.nd2": (b"\xda\xce\xbe\x0a" + bytes(40), "Nikon ND2"),
    "cells.lif": (b"\x70\0\0\0" + bytes(40), "Leica LIF"),
    "drawing.xcf": (b"gimp xcf v011\0", "GIMP"),
    "page.djvu": (b"AT&TFORM\0\0\0\0DJVU", "DjVu"),
    "volume.nrrd": (b"NRRD0004\n", "NRRD"),
    "fax.pam": (b"P7\nWIDTH 1\n", "PAM"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_pictures_that_cannot_be_read_are_put_aside_by_name(tmp_path, name):
    content, kind = UNREADABLE[name]
    file = write(tmp_path / "class" / name, content)
    assert is_picture(file)
    with pytest.raises(Refused, match=f"^not supported: {kind}"):
        decode(file, 8, 3)
    assert [type(item) for item in folder(tmp_path).records()] == [Record]
    assert [type(item) for item in imagefolder(tmp_path, seed=0, test_fraction=0.2).records()] == [Record]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a shopping list\n",
        b"BMW and Audi, a comparison of two makers of cars and of their engines",
        b"P1 is the first point, P2 the second",
        b"P5 notes\n",
        b"GIF is an old format",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"<html><body><svg></svg></body></html>",
        b"<?xml version='1.0'?><annotation><object/></annotation>",
        b"\0\0\0\x18ftypisom" + bytes(40),
        b"\0\0\0\x14ftypqt  " + bytes(40),
        b"\0\0\x01\xba" + bytes(40),
        b"\0\1\0\0\0\x0f\0\x80" + bytes(40),
        b"\x93NUMPY\1\0",
        b"\x1f\x8b\x08" + bytes(30),
        b"PK\3\4" + bytes(40),
        b"%PDF-1.7\n",
        b"SQLite format 3\0",
        b"\n\0\0\0",
        bytes(600),
    ],
)
def test_what_is_no_picture_is_another_file(tmp_path, content):
    file = write(tmp_path / "something", content)
    assert not by_start(content)
    assert not is_picture(file)
    write(tmp_path / "notes.txt", content)
    write(tmp_path / "picture.jpg.json", content)
    assert [type(item) for item in folder(tmp_path).records()] == [Other] * 3


def test_a_pipe_or_a_broken_link_of_another_name_is_another_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert [type(item) for item in folder(tmp_path).records()] == [Other, Other]


@pytest.mark.parametrize(("name", "kind"), [("a.JPG", "JPEG"), ("a.nii.GZ", "NIfTI"), ("a.tar.gz", ""), ("jpg", "")])
def test_endings(name, kind):
    assert by_ending(name) == kind


def test_a_video_called_a_picture():
    with pytest.raises(Refused, match="not supported: a video"):
        decode(b"\0\0\0\x18ftypmp42" + bytes(40), 8, 3)


def test_heic_without_what_reads_it(monkeypatch):
    content = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    opened._reads_heic.cache_clear()
    with pytest.raises(Refused, match="not supported: HEIC; install pillow-heif"):
        decode(content, 8, 3)
    monkeypatch.undo()
    opened._reads_heic.cache_clear()
    assert decode(content, 8, 3).width == 24


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JPEG2000"])
def test_no_other_kind_is_turned_twice(kind):
    upright = scene(48, 24)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    content = encoded(stored, kind, **({} if kind == "JPEG2000" else {"exif": exif.tobytes(), "quality": 95}))
    decoded = decode(content, 24, 3)
    turned = decode(encoded(upright if kind != "JPEG2000" else stored, "PNG"), 24, 3)
    assert (decoded.width, decoded.height) == (turned.width, turned.height)
    assert np.abs(decoded.pixels.astype(int) - turned.pixels).mean() < 4
