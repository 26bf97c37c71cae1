"""Files that hold a volume each: NIfTI and NumPy's arrays."""

from __future__ import annotations

import gzip
import logging
import math
import struct
from pathlib import Path

import numpy as np

from sslflow.ingest.volumes.volume import Unusable, Volume, checked

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it logs each odd header; what matters is checked

ENDINGS = (".nii", ".nii.gz", ".npy")
OTHERS = (
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".mgz",
    ".mgh",
    ".img",
    ".hdr",
    ".npz",
    ".h5",
    ".hdf5",
    ".tif",
    ".tiff",
    ".mnc",
)
"""Of files that may hold volumes, too, and aren't read."""
_SECOND = 540
"""Bytes of the header of the second version of NIfTI."""
_TIMES = 64
"""By how much a file may hold more voxels than a volume: several of them, of which one is named as the reason."""
_BEHIND = 2**20
"""Bytes that may stand behind the voxels."""
_MILLIMETRES = {1: 1000.0, 3: 0.001}
"""In NIfTI's codes of lengths, a metre and a micrometre; 2 is a millimetre, for which 0, not known, is taken."""


def ending(name: str) -> str:
    """That of the `ENDINGS` which a file's name has; empty where it has none of them."""
    return next((one for one in (".nii.gz", ".nii", ".npy") if name.lower().endswith(one)), "")


def stem(name: str) -> str:
    """The name without it."""
    return name[: len(name) - len(ending(name))]


def read_file(path: Path, max_voxels: int) -> Volume:
    """The volume in a file. Raises `Unusable` for whatever isn't one."""
    try:
        read = _npy if ending(path.name) == ".npy" else _nifti
        found = read(path, max_voxels)
    except Unusable:
        raise
    except MemoryError:
        raise Unusable("too large: it doesn't fit into memory") from None
    except Exception as error:  # readers stumble over damaged files with errors of any kind
        if isinstance(error, OSError) and error.errno:
            raise Unusable(f"not readable: {error.strerror}") from None
        raise Unusable(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from None
    return checked(found, max_voxels)


def _require_bounded(shape: tuple[int, ...], max_voxels: int) -> None:
    if math.prod(shape) > _TIMES * max_voxels:
        raise Unusable(f"too large: {' x '.join(map(str, shape))} voxels")


def _npy(path: Path, max_voxels: int) -> Volume:
    if not path.stat().st_size:
        raise Unusable("damaged: the file is empty")
    # Mapped, what its header says must be there; read, memory for it would be taken first.
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    _require_bounded(mapped.shape, max_voxels)
    return Volume(np.array(mapped))


def _nifti(path: Path, max_voxels: int) -> Volume:
    import nibabel as nib  # as in volume.py

    with path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
    # The whole file: its check sum stands at the end, and a reader that stops before it would take what is damaged.
    with gzip.open(path) if packed else path.open("rb") as handle:
        head = handle.read(4)
        if len(head) < 4:
            raise Unusable("damaged: the file is empty, or ends in its header")
        kind = nib.Nifti2Image if _SECOND in struct.unpack("<i", head) + struct.unpack(">i", head) else nib.Nifti1Image
        header = kind.header_class
        first = head + handle.read(header.sizeof_hdr - 4)
        if len(first) < header.sizeof_hdr:
            raise Unusable("damaged: it ends in its header")
        told = header(first)
        shape = told.get_data_shape()
        _require_bounded(shape, max_voxels)
        # A few bytes may unpack to any number of them: no more are read than the header tells of.
        whole = int(told.get_data_offset()) + math.prod(shape) * told.get_data_dtype().itemsize
        content = first + handle.read(max(0, whole - len(first)) + _BEHIND)
        if len(content) >= whole + _BEHIND:
            raise Unusable("damaged: it holds far more than its header says")
    image = kind.from_bytes(content)
    if len(image.shape) > 3 and any(size > 1 for size in image.shape[3:]):
        return Volume(np.empty(image.shape, np.uint8))  # nothing of it is wanted but its shape
    known = any(int(image.header[code]) > 0 for code in ("sform_code", "qform_code"))  # pyright: ignore[reportArgumentType]
    unit = _MILLIMETRES.get(int(image.header["xyzt_units"]) & 7, 1.0)  # pyright: ignore[reportArgumentType]
    steps = tuple(unit * float(step) for step in image.header.get_zooms()[:3])
    values = np.asanyarray(image.dataobj)
    affine = np.diag([unit, unit, unit, 1.0]) @ np.asarray(image.affine, np.float64) if known else None
    return Volume(values, affine, steps if len(steps) == 3 and min(steps) > 0 else None)
