from __future__ import annotations

import io
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from data_fixtures import bomb, encoded, scene, write
from PIL import Image

from sslflow.ingest.images.decode import Refused, decode

SQUARE = scene(32, 32)


def exactly(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_kinds_keep_every_pixel(kind):
    content = encoded(SQUARE, kind, **({"lossless": True} if kind == "WEBP" else {}))
    decoded = decode(content, 32, 3)
    assert (decoded.pixels == exactly(SQUARE)).all()
    assert (decoded.width, decoded.height) == (32, 32)


def test_jpeg_and_gif_are_close():
    near = decode(encoded(SQUARE, "JPEG", quality=95), 32, 3).pixels.astype(int)
    assert abs(near - exactly(SQUARE)).mean() < 3
    animated = encoded(SQUARE, "GIF", save_all=True, append_images=[Image.new("RGB", (32, 32), "red")])
    assert abs(decode(animated, 32, 3).pixels.astype(int) - exactly(SQUARE)).mean() < 12


def test_grey_and_bilevel_and_palette_and_cmyk():
    grey = SQUARE.convert("L")
    assert (decode(encoded(grey, "PNG"), 32, 1).pixels[0] == np.asarray(grey)).all()
    assert (decode(encoded(grey, "PNG"), 32, 3).pixels == np.asarray(grey)).all()
    bilevel = decode(encoded(grey.convert("1"), "PNG"), 32, 1).pixels
    assert set(np.unique(bilevel)) == {0, 255}
    palette = SQUARE.quantize(64)
    assert (decode(encoded(palette, "PNG"), 32, 3).pixels == exactly(palette)).all()
    for channels in (1, 3):
        cmyk = decode(encoded(SQUARE.convert("CMYK"), "TIFF"), 32, channels).pixels
        assert abs(cmyk.astype(int) - decode(encoded(SQUARE, "TIFF"), 32, channels).pixels).max() <= 2


@pytest.mark.parametrize(("background", "shade"), [("white", 255), ("grey", 128), ("black", 0)])
def test_alpha_is_laid_over_the_background(background, shade):
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    pixels = decode(encoded(image, "PNG"), 8, 3, background=background).pixels
    assert (pixels[:, :, :4] == np.array([200, 0, 0])[:, None, None]).all()
    assert (pixels[:, :, 4:] == shade).all()
    grey = Image.new("LA", (8, 8), (7, 0))
    assert (decode(encoded(grey, "PNG"), 8, 1, background=background).pixels == shade).all()


def test_transparent_palette():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([9, 9, 9, 0, 0, 200])
    image.paste(1, (0, 0, 4, 8))
    pixels = decode(encoded(image, "PNG", transparency=0), 8, 3).pixels
    assert (pixels[:, :, 4:] == 255).all()
    assert (pixels[2, :, :4] == 200).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind):
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    dark = encoded(Image.fromarray(values), kind)
    assert decode(dark, 16, 1).pixels.max() == 1  # 255 of 65535 is nearly black
    assert decode(encoded(Image.fromarray(values * 257), kind), 16, 1).pixels.ravel().tolist() == list(range(256))
    stretched = decode(dark, 16, 1, sixteen_bit="stretch").pixels
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert abs(stretched.ravel().astype(int) - np.arange(256)).max() <= 2


def test_float_tiff_is_stretched_and_may_hold_holes():
    values = np.linspace(-5, 5, 256, dtype=np.float32).reshape(16, 16)
    values[0, 0] = np.nan
    pixels = decode(encoded(Image.fromarray(values), "TIFF"), 16, 1).pixels[0]
    assert pixels[0, 0] == 0
    assert (pixels.min(), pixels.max()) == (0, 255)
    with pytest.raises(Refused, match="no finite value"):
        decode(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), 4, 1)
    flat = decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), 4, 1).pixels
    assert (flat == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_every_exif_orientation_ends_upright(orientation, kind, fit):
    upright = scene(48, 24)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(stored, kind, exif=exif), 24, 3, fit=fit)
    expected = decode(encoded(upright, "PNG"), 24, 3, fit=fit).pixels.astype(int)
    assert abs(decoded.pixels - expected).mean() < (4 if kind in ("JPEG", "WEBP") else 0.6)
    assert (decoded.width, decoded.height) == (48, 24)


def test_fits():
    image = Image.new("RGB", (60, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    content = encoded(image, "PNG")
    blue = np.array([0, 0, 255])[:, None, None]
    assert (decode(content, 20, 3, fit="crop").pixels == blue).all()
    padded = decode(content, 30, 3, fit="pad", background="black").pixels
    assert (padded[:, :10] == 0).all()
    assert (padded[:, 20:] == 0).all()
    assert padded[0, 15, 0] == 255
    stretched = decode(content, 30, 3, fit="stretch").pixels
    assert stretched[2, :, 15].min() > 250
    assert stretched[0, :, 2].min() > 250


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_odd_sizes(fit, size):
    assert decode(encoded(Image.new("RGB", size, "red"), "PNG"), 16, 3, fit=fit).pixels.shape == (3, 16, 16)


def test_a_large_jpeg_looks_the_same_as_when_it_is_decoded_in_full():
    image = scene(1600, 1200)
    shrunk = decode(encoded(image, "JPEG", quality=95), 64, 3).pixels.astype(int)
    assert abs(shrunk - decode(encoded(image, "PNG"), 64, 3).pixels).mean() < 1.5


def test_pixels_in_memory():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (decode(grey, 8, 1).pixels[0] == grey).all()
    assert (decode(grey[..., None], 8, 3).pixels == grey).all()
    colour = np.asarray(SQUARE)
    assert (decode(colour, 32, 3).pixels == exactly(SQUARE)).all()


def corrupted() -> bytes:
    content = bytearray(encoded(scene(64, 64, seed=3), "PNG"))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"a shopping list\n", "not an image"),
        (encoded(scene(200, 200), "JPEG")[:-900], "damaged: .*truncated"),
        (encoded(scene(200, 200), "JPEG")[:300], "damaged"),
        (encoded(SQUARE, "PNG")[:-60], "damaged"),
        (encoded(SQUARE, "PNG")[:20], "damaged"),
        (b"\xff\xd8\xff" + bytes(40), "damaged: begins like JPEG"),
        (encoded(SQUARE, "WEBP")[:60], "damaged"),
        (encoded(SQUARE, "TIFF")[:-500], "damaged"),
        (encoded(SQUARE, "GIF")[:200], "damaged"),
        (encoded(SQUARE, "BMP")[:500], "damaged"),
        (corrupted(), "damaged"),
        (bomb(), "too large"),
        (bomb(11_000, 11_000), "too large: 11000 x 11000"),
        (b"\0\0\0\x1cftypheic" + bytes(50), "damaged: begins like HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not supported: EPS"),
    ],
)
def test_what_is_refused(content, reason):
    with pytest.raises(Refused, match=reason):
        decode(content, 16, 3)


def test_a_bomb_is_not_decoded():
    """A process with little memory survives what would need 2.7 GB."""
    script = (
        "import resource, sys; from sslflow.ingest.images.decode import decode, Refused\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: decode(sys.stdin.buffer.read(), 16, 3)\n"
        "except Refused as reason: print(reason)"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], input=bomb(), capture_output=True, check=True, timeout=30, env=environment
    )
    assert done.stdout.startswith(b"too large")


def test_max_pixels_is_the_limit():
    content = encoded(scene(20, 10), "PNG")
    assert decode(content, 8, 3, max_pixels=200).width == 20
    with pytest.raises(Refused, match="20 x 10 pixels, more than max_pixels = 199"):
        decode(content, 8, 3, max_pixels=199)


def test_a_picture_with_another_ending_is_read_by_its_content(tmp_path):
    assert decode(write(tmp_path / "photo.jpg", encoded(SQUARE, "PNG")), 32, 3).pixels.shape == (3, 32, 32)


def test_files_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "folder.png").mkdir()
    for name, reason in (("pipe", "not a regular file"), ("link", "leads nowhere"), ("folder", "not a regular file")):
        with pytest.raises(Refused, match=reason):
            decode(tmp_path / f"{name}.png", 8, 3)


def test_no_permission(tmp_path, monkeypatch):
    file = write(tmp_path / "secret.png", encoded(SQUARE, "PNG"))
    if os.geteuid() == 0:  # nothing is hidden from root: let the system call fail

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
    else:
        file.chmod(stat.S_IWUSR)
    with pytest.raises(Refused, match="no permission"):
        decode(file, 8, 3)


def test_broken_metadata_does_not_cost_the_image():
    target = io.BytesIO()
    SQUARE.save(target, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert decode(target.getvalue(), 32, 3).pixels.shape == (3, 32, 32)
