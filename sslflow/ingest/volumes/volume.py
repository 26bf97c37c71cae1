"""A volume as it was read, brought to one orientation, one spacing and one range of values. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

# nibabel and scipy are imported where volumes are worked on: they take long to load, and signatures need neither.

CLOSE = 1e-3
"""Share by which what is the same may differ."""
FEWEST = 2
"""Slices: one alone is an image."""

WindowIn = Literal["percent", "values"]


class Unusable(ValueError):
    """Why a volume is put aside, in words."""


@dataclass(frozen=True)
class Volume:
    """Values of voxels, and where these are."""

    values: np.ndarray
    """`(x, y, z)`, of any type."""
    affine: np.ndarray | None = None
    """Millimetres to the right, to the front and upwards (RAS) of voxel (x, y, z), float64 `(4, 4)`; None: not known,
    and axes are taken as they are."""
    spacing: tuple[float, ...] | None = None
    """Millimetres from voxel to voxel along each axis, where the affine isn't known; None: not known either."""
    patient: str = ""
    """What the file calls the patient, if it does."""

    @property
    def steps(self) -> np.ndarray | None:
        """Millimetres from voxel to voxel along each axis, `(3,)`; None: not known."""
        if self.affine is not None:
            return np.linalg.norm(self.affine[:3, :3], axis=0)
        return None if self.spacing is None else np.array(self.spacing)

    @property
    def stored_as(self) -> str:
        """Where its axes run: `RAS`, to the right, to the front, upwards; empty where that isn't known."""
        if self.affine is None:
            return ""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(self.affine))


def checked(volume: Volume, max_voxels: int) -> Volume:
    """The volume of three axes of more than one voxel. Raises `Unusable` for any other."""
    values = volume.values
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        found = " x ".join(map(str, values.shape))
        more = "; write a file for each of them, or name one" if values.ndim > 3 else ""
        raise Unusable(f"{values.ndim} axes: expected a volume of 3, found {found}{more}")
    if min(values.shape) < FEWEST:
        raise Unusable(f"a single slice: {' x '.join(map(str, values.shape))} voxels")
    if values.dtype.kind not in "biuf":
        raise Unusable(f"values are no numbers, or several of each voxel: {values.dtype}")
    if values.size > max_voxels:
        raise Unusable(f"too large: {values.size:,} voxels, and data.max_voxels is {max_voxels:,}")
    if volume.affine is not None:
        linear = volume.affine[:3, :3]
        whole = np.linalg.norm(linear, axis=0).prod()  # of voxels of micrometres it is small, too
        if not np.isfinite(volume.affine).all() or abs(np.linalg.det(linear)) <= 1e-6 * whole:
            raise Unusable("affine: it says that all voxels lie in one plane, or nothing that is a number")
    # A mask of true and false: numbers like any other from here on.
    return replace(volume, values=values.astype(np.uint8) if values.dtype.kind == "b" else values)


def finite(volume: Volume) -> Volume:
    """The volume. Raises `Unusable` where a value is NaN or infinite, or all are the same."""
    values = volume.values
    wrong = values.size - int(np.isfinite(values).sum())
    if wrong:
        raise Unusable(f"not finite: {wrong:,} of {values.size:,} voxels are NaN or infinite")
    if values.min() == values.max():
        raise Unusable(f"empty: all voxels are {values.flat[0]:g}")
    return volume


def canonical(volume: Volume) -> Volume:
    """The same voxels in an order in which the first axis runs to the right, the second to the front and the third
    upwards, as closely as whole axes allow: they are moved and mirrored, never interpolated. Of a volume whose
    orientation isn't known, all stays as it is."""
    if volume.affine is None:
        return volume
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    order = io_orientation(volume.affine)
    values = apply_orientation(volume.values, order)
    moved = inv_ornt_aff(order, volume.values.shape)
    return replace(volume, values=values, affine=volume.affine @ moved)


def same_grid(one: Volume, other: Volume) -> bool:
    """Whether voxels of both, brought to one orientation, lie in the same places, as far as that is known."""
    if one.values.shape != other.values.shape:
        return False
    if one.affine is None or other.affine is None:
        return True
    steps = np.linalg.norm(one.affine[:3, :3], axis=0)
    return bool(np.allclose(one.affine, other.affine, rtol=0, atol=0.01 * float(steps.min())))


def resampled(
    values: np.ndarray, steps: np.ndarray | None, spacing: float, max_voxels: int, *, classes: bool = False
) -> np.ndarray:
    """Voxels `spacing` millimetres apart along each axis instead of `steps`: trilinear, after a slight blur where they
    become fewer, so that fine detail doesn't turn into another pattern; of `classes` the nearest. With 0, or steps that
    aren't known, as they are. Raises `Unusable` for more than `max_voxels` of them."""
    if not spacing or steps is None or np.allclose(steps, spacing, rtol=CLOSE):
        return values
    from scipy.ndimage import gaussian_filter, zoom

    shape = np.maximum(1, np.round(np.array(values.shape) * steps / spacing))
    if shape.prod() > max_voxels:
        sizes = " x ".join(f"{size:.0f}" for size in shape)
        raise Unusable(f"too large once resampled to data.spacing {spacing:g}: {sizes} voxels")
    factors = shape / np.array(values.shape)
    if classes:
        return np.asarray(zoom(values, factors, order=0, mode="nearest", grid_mode=True))
    soft = gaussian_filter(values.astype(np.float32), np.maximum(0.0, (1 / factors - 1) / 2))
    return np.asarray(zoom(soft, factors, order=1, mode="nearest", grid_mode=True))


def ranged(values: np.ndarray, window: tuple[float, float], window_in: WindowIn) -> np.ndarray:
    """uint8 values: what is at or below the window's first is 0, what is at or above its second 255. `percent`: these
    are percentiles of the volume's own voxels. Raises `Unusable` where nothing lies between them."""
    low, high = np.percentile(values, window) if window_in == "percent" else window
    if low == high:
        raise Unusable(f"empty: {window[0]:g} % and {window[1]:g} % of the voxels are at or below {low:g}")
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    found = scaled.round().clip(0, 255).astype(np.uint8)
    if found.min() == found.max():
        raise Unusable(f"empty: all voxels lie on one side of the window, {low:g} to {high:g}")
    return found
