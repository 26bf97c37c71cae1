"""Small volumes in files of all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import torch
import torch.nn.functional as F
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from sslflow.data.fields import Fields
from sslflow.data.formats import VolumeFormat


def gradient(shape: Sequence[int] = (12, 10, 14), seed: int = 0) -> np.ndarray:
    """Values that tell each voxel from its neighbours, int16; brighter to the right, to the front and upwards."""
    x, y, z = np.indices(tuple(shape))
    noise = np.random.default_rng(seed).integers(0, 3, tuple(shape))
    return (9 * x + 17 * y + 31 * z + noise).astype(np.int16)


def write_nifti(file: Path, values: np.ndarray, affine: np.ndarray | None = None, *, known: bool = True) -> Path:
    """`affine`: in RAS; None: voxels of 1 mm in RAS. Not `known`: the header doesn't say where axes run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, (np.eye(4) if affine is None else affine) if known else None)
    nib.save(image, file)
    return file


def stored(values: np.ndarray, axes: str, steps: Sequence[float] = (1.0, 1.0, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """Values in RAS as a file holds them whose axes run otherwise, such as `LPS` or `SRA`, and its affine."""
    order = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axes))
    )
    affine = np.diag([*steps, 1.0]) @ nib.orientations.inv_ornt_aff(order, values.shape)
    return nib.orientations.apply_orientation(values, order), affine


def write_series(
    folder: Path,
    values: np.ndarray,
    *,
    names: Sequence[str] = (),
    leave_out: Sequence[int] = (),
    patient: str | Sequence[str] = "P1",
    series: Sequence[str] = (),
    spacing: Sequence[float] = (1.0, 1.0, 2.0),
    intercept: float = -1000.0,
    shear: float = 0.0,
    frames: int = 0,
    slope: float = 1.0,
    photometric: str = "MONOCHROME2",
    signed: bool = True,
) -> Path:
    """A CT series of values `(x, y, z)` in RAS, a file for each z from below to above, but those left out: rows run to
    the left, columns to the back, as a patient who lies on the back is usually stored."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid(entropy_srcs=[str(folder)])
    for number in range(values.shape[2]):
        if number in leave_out:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(folder), str(number)])
        one = pydicom.Dataset()
        one.file_meta = meta
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.PatientID = patient if isinstance(patient, str) else patient[number]
        one.SeriesInstanceUID = series[number] if series else uid
        one.Modality, one.InstanceNumber = "CT", values.shape[2] - number
        # From the highest x and y: to the left and to the back; in DICOM's own terms both are positive.
        x, y = ((values.shape[axis] - 1) * spacing[axis] for axis in (0, 1))
        one.ImagePositionPatient = [-x, -y + shear * number, spacing[2] * number]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.PixelSpacing = [spacing[1], spacing[0]]
        one.Rows, one.Columns = values.shape[1], values.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, photometric
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, int(signed)
        one.RescaleSlope, one.RescaleIntercept = slope, intercept
        stored = np.rint((values[::-1, ::-1, number].T - int(intercept)) / slope)
        pixels = np.ascontiguousarray(stored).astype("<i2" if signed else "<u2")
        if frames:
            one.NumberOfFrames = frames
            pixels = np.stack([pixels] * frames)
        one.PixelData = pixels.tobytes()
        name = names[number] if names else f"{(number * 5 + 3) % values.shape[2]:03d}.dcm"
        one.save_as(folder / name, enforce_file_format=True)
    return folder


class MemoryVolumes:
    """What a `Dataset` of volumes offers, of volumes in memory that are built alike, as bodies are: what is common to
    all, and as much that is each one's own."""

    def __init__(self, count: int = 64) -> None:
        numbers = torch.Generator().manual_seed(0)
        coarse = torch.randn(1 + count, 1, 4, 4, 4, generator=numbers)
        common, own = F.interpolate(coarse, size=(12, 12, 12), mode="trilinear").split((1, count))
        noise = 0.1 * torch.randn(own.shape, generator=numbers)
        self.volumes = (128 + 45 * (common + own + noise)).round().clamp(0, 255).to(torch.uint8)
        shares = self.volumes.float() / 255
        self.format = VolumeFormat(1, 12, (float(shares.mean()),), (float(shares.std()),))

    @property
    def pretraining_rows(self) -> np.ndarray:
        return np.arange(len(self.volumes))

    def read(self, rows: np.ndarray) -> Fields:
        return Fields(volumes=self.volumes[torch.as_tensor(rows)].clone())
