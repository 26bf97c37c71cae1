"""Folders of DICOM files, a series of slices each."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.processing import apply_rescale
from pydicom.uid import DeflatedExplicitVRLittleEndian

from sslflow.ingest.volumes.volume import FEWEST, Unusable, Volume, checked

ENDINGS = (".dcm", ".dicom", ".ima")
UNEVEN = 0.02
"""By how much of a step two steps between slices may differ."""
TILTED = 0.02
"""By how much of a step the next slice may lie beside, not above: more is a gantry that was tilted."""
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM counts to the left and to the back."""


def is_dicom(path: Path) -> bool:
    """Whether a file calls itself one, by its name or its first bytes."""
    if path.suffix.lower() in ENDINGS:
        return True
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_series(files: Sequence[Path], max_voxels: int) -> Volume:
    """The volume of the slices in the files, in the order of their places. Values are those that the rescale slope and
    intercept make, such as Hounsfield units; high ones are bright.

    Raises `Unusable` where the files are not one series of one patient, of single slices of one size, whose places are
    known and evenly apart.
    """
    try:
        return _stacked(files, max_voxels)
    except Unusable:
        raise
    except MemoryError:
        raise Unusable("too large: it doesn't fit into memory") from None
    except Exception as error:  # headers may hold anything
        raise Unusable(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from None


def _stacked(files: Sequence[Path], max_voxels: int) -> Volume:
    slices = [_read(file) for file in files]
    slices = [one for one in slices if "PixelData" in one]
    if not slices:
        raise Unusable("no slice: none of its files holds pixels")
    for field, words in (("PatientID", "patients"), ("SeriesInstanceUID", "series")):
        if len(found := sorted({str(one.get(field, "")) for one in slices})) > 1:
            raise Unusable(f"slices of {len(found)} {words} in one folder: {', '.join(found[:3])}; give each a folder")
    if several := [one for one in slices if int(one.get("NumberOfFrames") or 1) > 1]:
        frames = int(several[0].NumberOfFrames)
        raise Unusable(f"multi-frame: {frames} slices in one file; write it as NIfTI, or as a file for each slice")
    if len(slices) < FEWEST:
        raise Unusable("a single slice")
    for field in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        if without := sum(not one.get(field) for one in slices):
            raise Unusable(f"{without} of {len(slices)} slices have no {field}: where they lie isn't known")
    kinds = {(one.Rows, one.Columns, int(one.get("SamplesPerPixel", 1)), tuple(one.PixelSpacing)) for one in slices}
    if len(kinds) > 1 or next(iter(kinds))[2] != 1:
        sizes = sorted({f"{rows} x {columns}" for rows, columns, _, _ in kinds})
        raise Unusable(f"slices differ in size, spacing or number of values: {', '.join(sizes)}")
    rows, columns = kinds.copy().pop()[:2]
    if rows * columns * len(slices) > max_voxels:
        raise Unusable(f"too large: {rows} x {columns} x {len(slices)} voxels")
    placed, affine = _placed(slices)
    values = np.stack([_values(one).T for one in placed], axis=2)
    return checked(Volume(values, affine, patient=str(placed[0].get("PatientID", ""))), max_voxels)


def _read(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break rules and aren't used
            if read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                # It is unpacked as a whole, however much that is, before anything is known of it.
                raise Unusable(f"not supported: {file.name}: deflated; write it in another transfer syntax")
            return pydicom.dcmread(file)
    except Unusable:
        raise
    except Exception as error:  # as with NIfTI, of any kind
        raise Unusable(f"damaged: {file.name}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _values(one: Any) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = one.pixel_array
    except Exception as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise Unusable(
            f"damaged, or compressed in a way that isn't read: {Path(one.filename).name}: {reason}"
        ) from None
    return np.asarray(apply_rescale(_bright_is_high(pixels, one), one), np.float32)


def _bright_is_high(pixels: np.ndarray, one: Any) -> np.ndarray:
    """Stored values of which a high one is bright, as with MONOCHROME2. With MONOCHROME1 it is dark: they are turned
    round within the range that they are stored in, unless slope and intercept give them a meaning, such as Hounsfield
    units, of which only the display is turned round."""
    measured = (float(one.get("RescaleSlope") or 1), float(one.get("RescaleIntercept") or 0)) != (1.0, 0.0)
    if one.get("PhotometricInterpretation") != "MONOCHROME1" or measured or "ModalityLUTSequence" in one:
        return pixels
    # The lowest and the highest number add up to 2^bits - 1, and of numbers with a sign to -1.
    return (-1 if one.PixelRepresentation else (1 << int(one.BitsStored)) - 1) - pixels.astype(np.int64)


def _placed(slices: Iterable[Any]) -> tuple[list[Any], np.ndarray]:
    """The slices in the order of their places, and the affine of the volume that they are stacked to."""
    slices = list(slices)
    ways = np.array([[float(part) for part in one.ImageOrientationPatient] for one in slices])
    if not np.allclose(ways, ways[0], atol=1e-3):
        raise Unusable("slices lie in different planes: a scout among them, or another series")
    along_row, along_column = ways[0, :3], ways[0, 3:]
    normal = np.cross(along_row, along_column)
    places = np.array([[float(part) for part in one.ImagePositionPatient] for one in slices])
    order = np.argsort(places @ normal, kind="stable")
    ordered = places[order]
    heights = ordered @ normal
    steps = np.diff(heights)
    usual = float(np.median(steps))
    if usual <= 0 or steps.min() < UNEVEN * usual:
        twice = int(np.argmin(steps))
        raise Unusable(f"two slices in the same place, at {heights[twice]:.2f} mm along the series")
    if abs(steps - usual).max() > UNEVEN * usual:
        worst = int(np.argmax(abs(steps - usual)))
        missing = ": a slice is missing" if steps[worst] > 1.5 * usual else ""
        raise Unusable(
            f"slices are not evenly apart{missing}: {steps[worst]:.2f} mm after {heights[worst]:.2f} mm, elsewhere "
            f"{usual:.2f} mm"
        )
    whole = (ordered[-1] - ordered[0]) / (len(ordered) - 1)
    beside = float(np.linalg.norm(whole - normal * (whole @ normal)))
    if beside > TILTED * usual:
        raise Unusable(f"sheared: each slice lies {beside:.2f} mm beside the one before, as with a tilted gantry")
    down, right = (float(part) for part in slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, :4] = np.stack([along_row * right, along_column * down, whole, ordered[0]], axis=1)
    return [slices[place] for place in order], _TO_RAS @ affine
