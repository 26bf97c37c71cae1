"""Small files that claim, or unpack to, more than there is memory for: refused, in little memory."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from data_fixtures import bomb
from pydicom.uid import DeflatedExplicitVRLittleEndian

from sslflow.ingest.images.decode import Decoded, decode
from sslflow.ingest.images.idx import idx
from sslflow.ingest.volumes.dicom import read_series
from sslflow.ingest.volumes.files import read_file
from sslflow.settings.file import MOST, content
from tests.volume_fixtures import gradient, write_series

LITTLE, HUGE = 2**24, 2**26


def pixels(place: Path) -> Callable[[], object]:
    return lambda: decode(bomb(), 32, 3)


def text_beside_pixels(place: Path) -> Callable[[], object]:
    """A zTXt chunk of zeros."""
    packed = b"a\0\0" + zlib.compress(bytes(HUGE), 9)
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    whole = bomb(4, 4)
    return lambda: decode(whole[:33] + chunk + whole[33:], 32, 3)


def volume(place: Path) -> Callable[[], object]:
    small = nib.Nifti1Image(gradient((4, 4, 4)), np.eye(4)).to_bytes()
    (place / "a.nii.gz").write_bytes(gzip.compress(small + bytes(HUGE), 9))
    return lambda: read_file(place / "a.nii.gz", 1000)


def array(place: Path) -> Callable[[], object]:
    with (place / "a.npy").open("wb") as handle:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**20, 2**20, 2**10)}
        np.lib.format.write_array_header_1_0(handle, header)
    return lambda: read_file(place / "a.npy", 1000)


def series(place: Path) -> Callable[[], object]:
    """A data set that is packed as a whole."""
    first, *rest = sorted(write_series(place / "series", gradient((4, 4, 3))).iterdir())
    slice_ = pydicom.dcmread(first)
    slice_.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    slice_.add_new(0x00091010, "OB", bytes(HUGE))
    slice_.save_as(first)
    return lambda: read_series([first, *rest], 1000)


def digits(place: Path) -> Callable[[], object]:
    header = b"\0\0\x08\x03" + struct.pack(">III", 2**31, 28, 28)
    (place / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header))
    return lambda: idx(place, seed=0, test_fraction=0.5)


def aliases(place: Path) -> Callable[[], object]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (place / "params.yaml").write_text("\n".join(lines))
    return lambda: content(place / "params.yaml")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (pixels, "too large"),
        (volume, "it holds far more than its header says"),
        (array, "larger than file size|too large|mmap length"),
        (series, "deflated"),
        (digits, "too small to hold"),
        (aliases, f"more than {MOST:,} values"),
    ],
)
def test_a_bomb_is_refused_in_little_memory(
    made: Callable[[Path], Callable[[], object]], said: str, tmp_path: Path
) -> None:
    read = made(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=said):
            read()
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()


def test_a_text_that_unpacks_to_much_is_passed_over(tmp_path: Path) -> None:
    """The picture is read without it."""
    read = text_beside_pixels(tmp_path)
    tracemalloc.start()
    try:
        assert isinstance(read(), Decoded)
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()
