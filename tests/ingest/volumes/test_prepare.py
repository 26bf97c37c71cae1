"""Volumes of all kinds, good and bad, to blocks."""

from __future__ import annotations

import csv
import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from sslflow.data.dataset import Dataset
from sslflow.ingest.volumes.blocks import Block, cut
from sslflow.ingest.volumes.dicom import read_series
from sslflow.ingest.volumes.files import read_file
from sslflow.ingest.volumes.prepare import prepare
from sslflow.ingest.volumes.volume import Unusable, Volume, canonical, ranged, resampled
from tests.volume_fixtures import gradient, stored, write_nifti, write_series

MOST = 10**6
AXES = ["".join(way) for order in itertools.permutations(("RL", "AP", "SI")) for way in itertools.product(*order)]


def prepared(tmp_path: Path, root: Path, **settings: Any) -> tuple[Dataset[Any], dict[str, int], list[str]]:
    lines: list[str] = []
    settings = {"source": "folder", "side": 8, "max_bad": 1.0, **settings}
    counts = prepare(tmp_path / "prepared", lines.append, path=str(root), **settings)
    return Dataset(tmp_path / "prepared"), counts, lines


def quarantine(tmp_path: Path) -> dict[str, str]:
    with (tmp_path / "prepared" / "quarantine.csv").open() as handle:
        return {row["path"]: row["reason"] for row in csv.DictReader(handle)}


# Orientation, spacing, values


@pytest.mark.parametrize("axes", AXES)
def test_however_a_volume_is_stored_it_comes_out_the_same(tmp_path: Path, axes: str) -> None:
    values = gradient()
    held, affine = stored(values, axes, (1.0, 2.0, 3.0))
    found = canonical(read_file(write_nifti(tmp_path / "a.nii.gz", held, affine), MOST))
    assert np.array_equal(found.values, values)
    assert found.steps is not None
    np.testing.assert_allclose(found.steps, (1, 2, 3), atol=1e-6)


@pytest.mark.parametrize(("unit", "step"), [("mm", 0.5), ("unknown", 0.5), ("micron", 0.0005), ("meter", 500.0)])
@pytest.mark.parametrize("known", [True, False])
def test_lengths_of_other_units_become_millimetres(tmp_path: Path, unit: str, step: float, known: bool) -> None:
    image = nib.Nifti1Image(gradient(), np.diag([0.5, 0.5, 0.5, 1.0]) if known else None)
    image.header.set_zooms((0.5, 0.5, 0.5))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    found = read_file(tmp_path / "a.nii", MOST)
    assert (found.affine is not None) == known
    assert found.steps is not None
    np.testing.assert_allclose(found.steps, (step,) * 3, rtol=1e-6)


def test_a_tilted_volume_is_brought_to_the_closest_axes_and_not_turned(tmp_path: Path) -> None:
    values = gradient()
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    held, affine = stored(values, "LSP")
    assert np.array_equal(
        canonical(read_file(write_nifti(tmp_path / "a.nii", held, turn @ affine), MOST)).values, values
    )


def test_a_series_is_put_in_order_by_place_and_comes_out_as_the_same_nifti_does(tmp_path: Path) -> None:
    values = gradient((8, 9, 7))
    files = sorted(write_series(tmp_path / "s", values, spacing=(1.0, 2.0, 3.0)).iterdir())
    found = canonical(read_series(files, MOST))
    assert np.array_equal(found.values, values)
    assert found.steps is not None
    np.testing.assert_allclose(found.steps, (1, 2, 3), atol=1e-6)
    assert found.patient == "P1"


def test_axes_of_unknown_orientation_are_left_as_they_are_and_that_is_said(tmp_path: Path) -> None:
    values = gradient((16, 16, 16))
    np.save(tmp_path / "a.npy", values)
    write_nifti(tmp_path / "b.nii", values[::-1], known=False)
    assert np.array_equal(canonical(read_file(tmp_path / "a.npy", MOST)).values, values)
    assert np.array_equal(canonical(read_file(tmp_path / "b.nii", MOST)).values, values[::-1])
    _, counts, lines = prepared(tmp_path / "out", tmp_path)
    assert counts["volumes"] == 2
    assert any(line.startswith("2 volumes don't say where their axes run") for line in lines)


def test_resampling_makes_cubes_of_the_spacing() -> None:
    # A plane of values is a plane at any spacing, but at its ends.
    values = np.indices((20, 20, 10))[2].astype(np.float32) * 2.0
    found = resampled(values, np.array([1.0, 1.0, 2.0]), 1.0, MOST)
    assert found.shape == (20, 20, 20)
    np.testing.assert_allclose(found[10, 10, 2:-2], np.arange(20)[2:-2] - 0.5, atol=1e-4)
    assert resampled(values, np.array([1.0, 1.0, 2.0]), 2.0, MOST).shape == (10, 10, 10)
    assert resampled(values, None, 1.0, MOST) is values
    assert resampled(values, np.array([1.0, 1.0, 2.0]), 0.0, MOST) is values
    classes = (values > 7).astype(np.uint8)
    assert set(np.unique(resampled(classes, np.array([1.0, 1.0, 2.0]), 1.0, MOST, classes=True))) == {0, 1}


def test_fine_stripes_become_grey_and_no_other_pattern() -> None:
    stripes = np.zeros((24, 24, 24), np.float32)
    stripes[::2] = 100
    assert resampled(stripes, np.ones(3), 3.0, MOST)[2:-2].std() < 10


def test_a_window_of_values_or_percent_becomes_black_to_white() -> None:
    values = np.linspace(-1000, 1000, 1001).reshape(7, 11, 13)
    found = ranged(values, (-160.0, 240.0), "values")
    assert found[values <= -160].max() == 0
    assert found[values >= 240].min() == 255
    assert abs(int(found[np.abs(values - 40) < 1.1][0]) - 128) <= 1
    percent = ranged(values, (10.0, 90.0), "percent")
    assert (percent == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert np.array_equal(percent, ranged(3 * values + 50, (10.0, 90.0), "percent"))
    with pytest.raises(Unusable, match="one side of the window"):
        ranged(values, (2000.0, 3000.0), "values")


# Blocks


def test_blocks_lie_in_the_middle_and_cover_what_a_loop_finds() -> None:
    values = gradient((21, 16, 10)).astype(np.uint8)
    found = {block.place: block.values for block in cut(values, None, 8, 4)}
    # 21 leaves one voxel over, 10 two.
    wanted = {(x, y, z) for x in (0, 4, 8, 12) for y in (0, 4, 8) for z in (1,)}
    assert set(found) == wanted
    for (x, y, z), block in found.items():
        assert np.array_equal(block, values[x : x + 8, y : y + 8, z : z + 8])


def test_a_short_volume_is_filled_up_with_black_and_its_filling_has_no_class() -> None:
    (block,) = cut(np.full((8, 8, 5), 7, np.uint8), np.ones((8, 8, 5), np.uint8), 8, 8)
    assert block.place == (0, 0, -1)
    assert block.tissues is not None
    assert np.array_equal(block.values[0, 0], [0, 7, 7, 7, 7, 7, 0, 0])
    assert np.array_equal(block.tissues[0, 0], [255, 1, 1, 1, 1, 1, 255, 255])
    assert block.label(0.1) == 0


def test_the_class_of_a_block_is_its_most_frequent_tissue() -> None:
    tissues = np.zeros((4, 4, 4), np.uint8)
    tissues[0], tissues[1, :2] = 2, 1
    values = np.zeros_like(tissues)
    assert Block((0, 0, 0), values, tissues).label(0.25) == 1
    assert Block((0, 0, 0), values, tissues).label(0.3) == -1
    assert Block((0, 0, 0), values, None).label(0.0) == -1
    assert Block((0, 0, 0), values, np.zeros_like(tissues)).label(0.0) == -1


def test_empty_blocks_are_left_out_and_counted(tmp_path: Path) -> None:
    values = np.zeros((16, 16, 16), np.int16)
    values[:8, :8, :8] = gradient((8, 8, 8))
    write_nifti(tmp_path / "raw" / "a.nii", values)
    dataset, counts, lines = prepared(tmp_path, tmp_path / "raw")
    assert (len(dataset), counts["empty"]) == (1, 7)
    assert "7 blocks are empty, and left out (data.empty)" in lines
    assert len(prepared(tmp_path, tmp_path / "raw", empty=0.0)[0]) == 8
    with pytest.raises(ValueError, match=r"all 8 blocks of 1 volumes are empty: lower data\.empty"):
        prepared(tmp_path, tmp_path / "raw", empty=200.0)


# Labels and patients


def test_label_volumes_beside_give_classes_of_blocks_and_voxels(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for number, axes in enumerate(("RAS", "LPI", "SRA", "PIR", "RAS")):
        values, tissues = gradient((16, 16, 8), number), np.zeros((16, 16, 8), np.uint8)
        tissues[:8], tissues[8:, :8] = 3, 7
        write_nifti(root / f"p{number}.nii.gz", *stored(values, axes))
        # The labels are stored otherwise than their volume, in the same places.
        write_nifti(root / f"p{number}_seg.nii.gz", *stored(tissues, "LPS"))
    dataset, counts, _ = prepared(tmp_path, root, labels="_seg")
    assert dataset.classes == ["3", "7"]
    assert dataset.truth is not None
    assert dataset.truth.pixel_classes == ["background", "3", "7"]
    assert (counts["volumes"], counts["test"], counts["train"]) == (5, 4, 16)
    rows = np.arange(len(dataset))
    masks = dataset.truth.masks(rows).numpy()
    for row, (x, y) in enumerate(zip(dataset.column("x"), dataset.column("y"), strict=True)):
        wanted = 1 if x < 8 else 2 if y < 8 else 0
        assert (masks[row] == wanted).all()
        assert dataset.labels[row] == wanted - 1
    assert not set(dataset.groups[dataset.rows("train")]) & set(dataset.groups[dataset.rows("test")])
    named, _, _ = prepared(tmp_path, root, labels="_seg", classes=tuple("abcdefgh"))
    assert named.classes == list("bcdefgh")


def test_label_volumes_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        write_nifti(tmp_path / "raw" / f"p{number}" / "t1.nii", gradient((8, 8, 8), number))
        write_nifti(tmp_path / "raw" / "labels" / f"p{number}" / "t1.nii.gz", np.ones((8, 8, 8), np.uint8))
    dataset, counts, _ = prepared(tmp_path, tmp_path / "raw", labels=str(tmp_path / "raw" / "labels"))
    assert (counts["volumes"], dataset.classes) == (3, ["1"])
    assert sorted(dataset.column("group")) == ["p0", "p1", "p2"]


@pytest.mark.parametrize(
    ("tissues", "words"),
    [
        (np.full((8, 8, 8), 0.5, np.float32), "no whole numbers"),
        (np.ones((8, 8, 7), np.uint8), "other voxels than its volume: 8 x 8 x 7 and 8 x 8 x 8"),
        (np.full((8, 8, 8), -1, np.int16), "it holds the value -1"),
    ],
)
def test_a_label_volume_that_does_not_fit_leaves_its_volume_without_labels(
    tmp_path: Path, tissues: np.ndarray, words: str
) -> None:
    for number in range(4):
        write_nifti(tmp_path / "raw" / f"p{number}.nii", gradient((8, 8, 8), number))
        own = np.ones((8, 8, 8), np.uint8) if number else tissues
        write_nifti(tmp_path / "raw" / f"p{number}_seg.nii", own)
    dataset, counts, lines = prepared(tmp_path, tmp_path / "raw", labels="_seg")
    assert (len(dataset), counts["annotations_unusable"]) == (4, 1)
    assert (dataset.labels == -1).sum() == 1
    assert words in (tmp_path / "prepared" / "annotations.csv").read_text()
    assert any(words in line for line in lines)


def test_labels_that_lie_nowhere_are_an_error_that_says_what_was_expected(tmp_path: Path) -> None:
    write_nifti(tmp_path / "raw" / "p.nii", gradient((8, 8, 8)))
    with pytest.raises(ValueError, match=r"p_seg\.nii\.gz beside it"):
        prepared(tmp_path, tmp_path / "raw", labels="_seg")
    with pytest.raises(ValueError, match="there is no folder not/here"):
        prepared(tmp_path, tmp_path / "raw", labels="not/here")


def test_class_folders_hold_patients(tmp_path: Path) -> None:
    for seed, (number, kind, scan) in enumerate(itertools.product(range(5), ("ill", "well"), "ab")):
        write_nifti(tmp_path / "raw" / kind / f"p{number}" / f"{scan}.nii", gradient((8, 8, 8), seed))
    write_nifti(tmp_path / "raw" / "stray.nii", gradient((8, 8, 8), 5000))
    dataset, counts, _ = prepared(tmp_path, tmp_path / "raw", source="folders")
    assert dataset.classes == ["ill", "well"]
    assert (counts["train"], counts["test"], len(set(dataset.groups))) == (16, 4, 10)
    assert not set(dataset.groups[dataset.rows("train")]) & set(dataset.groups[dataset.rows("test")])
    assert quarantine(tmp_path) == {"stray.nii": "not in a class folder"}


def test_one_patient_can_not_be_divided_and_that_is_said(tmp_path: Path) -> None:
    write_nifti(tmp_path / "raw" / "p.nii", gradient((16, 8, 8)))
    write_nifti(tmp_path / "raw" / "p_seg.nii", np.ones((16, 8, 8), np.uint8))
    dataset, _, lines = prepared(tmp_path, tmp_path / "raw", labels="_seg")
    assert not dataset.labelled
    assert any("a split never divides a patient" in line for line in lines)


def test_equal_volumes_are_found_whatever_way_they_are_stored(tmp_path: Path) -> None:
    values = gradient((8, 8, 8))
    write_nifti(tmp_path / "raw" / "a.nii", values)
    write_nifti(tmp_path / "raw" / "b.nii.gz", *stored(values, "LPS"))
    _, counts, _ = prepared(tmp_path, tmp_path / "raw")
    assert (counts["volumes"], counts["duplicates"]) == (1, 1)


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_equal_volumes_of_different_classes_have_none(tmp_path: Path, duplicates: str) -> None:
    for seed, (kind, number) in enumerate(itertools.product(("ill", "well"), range(4))):
        write_nifti(tmp_path / "raw" / kind / f"p{number}.nii", gradient((8, 8, 8), seed if number else 99))
    dataset, counts, lines = prepared(tmp_path, tmp_path / "raw", source="folders", duplicates=duplicates)
    same = np.array([name.endswith("p0.nii") for name in dataset.column("volume")])
    assert same.sum() == (1 if duplicates == "drop" else 2)
    assert (dataset.labels[same] == -1).all()
    assert (np.bincount(dataset.labels[~same]) == 3).all()
    assert counts["label_conflicts"] == 1
    assert any("1 volumes equal one of another class: none of them keeps a label" in line for line in lines)


# DICOM


def values_of(folder: Path) -> np.ndarray:
    return canonical(read_series(sorted(folder.iterdir()), 10**6)).values


@pytest.mark.parametrize("signed", [True, False])
def test_monochrome1_is_turned_round_so_that_dense_is_bright(tmp_path: Path, signed: bool) -> None:
    values = gradient((8, 9, 7))
    plain, dark = (
        values_of(write_series(tmp_path / kind, values, intercept=0.0, photometric=kind, signed=signed))
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    assert np.array_equal(plain, values)
    assert np.array_equal(dark, (-1.0 if signed else 2.0**16 - 1) - values)


def test_slope_and_intercept_make_hounsfield_units_however_they_are_shown(tmp_path: Path) -> None:
    values = 2 * gradient((8, 9, 7))
    for kind in ("MONOCHROME2", "MONOCHROME1"):
        assert np.array_equal(values_of(write_series(tmp_path / kind, values, slope=2.0, photometric=kind)), values)


# Bad input


def a_series(folder: Path, **settings: Any) -> None:
    write_series(folder, gradient((8, 8, 8)), **settings)


def write_damaged_series(folder: Path) -> None:
    """In whose headers two numbers are missing."""
    a_series(folder)
    for file in folder.iterdir():
        one = pydicom.dcmread(file)
        one.ImageOrientationPatient = [1, 0, 0, 0]
        one.save_as(file)


def write_flat(file: Path) -> None:
    """A header whose second row of the affine is all 0: in a NIfTI it is four floats at byte 296."""
    content = bytearray(write_nifti(file, gradient((8, 8, 8))).read_bytes())
    content[296:312] = bytes(16)
    file.write_bytes(bytes(content))


BAD: dict[str, tuple[Any, str]] = {
    "one_slice.nii": (lambda file: write_nifti(file, gradient((8, 8, 1))), "a single slice: 8 x 8 x 1 voxels"),
    "flat.npy": (lambda file: np.save(file, gradient()[0]), "2 axes: expected a volume of 3"),
    "nan.nii": (
        lambda file: write_nifti(file, np.where(gradient((8, 8, 8)) > 300, np.nan, 1.0).astype(np.float32)),
        "not finite",
    ),
    "four.nii.gz": (
        lambda file: write_nifti(file, np.ones((8, 8, 8, 3), np.int16)),
        "4 axes: expected a volume of 3, found 8 x 8 x 8 x 3",
    ),
    "constant.nii": (lambda file: write_nifti(file, np.full((8, 8, 8), 4, np.int16)), "empty: all voxels are 4"),
    "small.nii": (lambda file: write_nifti(file, gradient((8, 8, 3))), "too small: 8 x 8 x 3 voxels"),
    "huge.npy": (lambda file: np.save(file, np.zeros((101, 100, 100), np.uint8)), "too large: 1,010,000 voxels"),
    "objects.npy": (
        lambda file: np.save(file, np.array([None, {}]), allow_pickle=True),
        "damaged: Array can't be memory-mapped: Python objects",
    ),
    "text.nii": (lambda file: file.write_text("no volume" * 100), "damaged"),
    "nothing.nii.gz": (lambda file: file.write_bytes(b""), "damaged"),
    "nothing.npy": (lambda file: file.write_bytes(b""), "damaged: the file is empty"),
    "flat_affine.nii": (
        lambda file: write_flat(file),
        "affine: it says that all voxels lie in one plane",
    ),
    "scan.mha": (lambda file: file.write_bytes(b"ObjectType = Image"), "a format that isn't read"),
    "missing": (
        lambda folder: a_series(folder, leave_out=[3]),
        "slices are not evenly apart: a slice is missing: 4.00 mm after 4.00 mm, elsewhere 2.00 mm",
    ),
    "patients": (
        lambda folder: a_series(folder, patient=["A"] * 4 + ["B"] * 4),
        "slices of 2 patients in one folder: A, B",
    ),
    "series": (lambda folder: a_series(folder, series=["1.2"] * 4 + ["1.3"] * 4), "slices of 2 series in one folder"),
    "tilted": (lambda folder: a_series(folder, shear=0.5), "sheared: each slice lies 0.50 mm beside the one before"),
    "frames": (lambda folder: a_series(folder, frames=3), "multi-frame: 3 slices in one file"),
    "single": (lambda folder: a_series(folder, leave_out=range(1, 8)), "a single slice"),
    "headers": (write_damaged_series, "damaged: "),
    "twice": (
        lambda folder: (a_series(folder), (folder / "copy.dcm").write_bytes((folder / "000.dcm").read_bytes())),
        "two slices in the same place",
    ),
}


def test_what_can_not_be_used_is_put_aside_with_its_reason(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    write_nifti(root / "good.nii", gradient((8, 8, 8)))
    for name, (write, _) in BAD.items():
        write(root / name)
    cut_short = root / "cut.dcm_series"
    write_series(cut_short, gradient((8, 8, 8)))
    (cut_short / "000.dcm").write_bytes((cut_short / "000.dcm").read_bytes()[:-40])
    whole = write_nifti(root / "whole.nii.gz", gradient((9, 8, 8))).read_bytes()
    (root / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (root / "tail.nii.gz").write_bytes(whole[:-4])
    flipped = bytearray(gzip.decompress(whole))
    packed = bytearray(gzip.compress(bytes(flipped)))
    packed[-6] ^= 0xFF  # the check sum
    (root / "sum.nii.gz").write_bytes(bytes(packed))
    (root / "short.nii").write_bytes(bytes(flipped[:-100]))
    (root / "notes.txt").write_text("no volume")
    dataset, counts, _ = prepared(tmp_path, root, max_voxels=MOST)
    found = quarantine(tmp_path)
    assert set(dataset.column("volume")) == {"good.nii", "whole.nii.gz"}
    assert counts["other_files"] == 1
    for name, (_, words) in BAD.items():
        assert words in found.pop(name), name
    damaged = ("cut.dcm_series", "truncated.nii.gz", "tail.nii.gz", "sum.nii.gz", "short.nii")
    assert all(found.pop(name).startswith("damaged") for name in damaged)
    assert found == {}


def test_masks_are_volumes_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    np.save(tmp_path / "raw" / "a.npy", gradient((8, 8, 8)) > 200)
    np.save(tmp_path / "raw" / "b.npy", np.ones((8, 8, 8), bool))
    dataset, _, _ = prepared(tmp_path, tmp_path / "raw")
    assert np.array_equal(dataset.read(np.arange(1))["volumes"][0, 0].numpy() == 255, gradient((8, 8, 8)) > 200)
    assert quarantine(tmp_path) == {"b.npy": "empty: all voxels are 1"}


def test_a_spacing_far_too_fine_is_told_before_memory_is_full(tmp_path: Path) -> None:
    write_nifti(tmp_path / "raw" / "a.nii", gradient((8, 8, 8)))
    with pytest.raises(ValueError, match=r"too large once resampled to data\.spacing 0\.01: 800 x 800 x 800 voxels"):
        prepared(tmp_path, tmp_path / "raw", spacing=0.01, max_voxels=MOST)


def test_too_much_that_is_bad_stops_with_examples(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    write_nifti(root / "good.nii", gradient((8, 8, 8)))
    for number in range(3):
        write_nifti(root / f"bad{number}.nii", np.full((8, 8, 8), number, np.int16))
    with pytest.raises(
        ValueError, match=r"3 of 4 volumes can't be used, more than data\.max_bad = 0\.5 allows \(3 empty\)"
    ):
        prepared(tmp_path, root, max_bad=0.5)
    assert not (tmp_path / "prepared").exists()


def test_unequal_voxels_and_a_patient_in_two_folders_are_told(tmp_path: Path) -> None:
    a_series(tmp_path / "raw" / "one")
    write_series(tmp_path / "raw" / "two", gradient((8, 8, 8), 1))
    _, _, lines = prepared(tmp_path, tmp_path / "raw")
    assert any("voxels aren't cubes (1 x 1 x 2 mm): set data.spacing" in line for line in lines)
    assert any("PatientID P1 stands in 2 folders (one, two)" in line for line in lines)
    assert any("2 from LPS" in line for line in lines)
    dataset, _, lines = prepared(tmp_path, tmp_path / "raw", spacing=1.0)
    assert not any("cubes" in line for line in lines)
    assert set(dataset.column("z")) == {0, 8}


def test_a_folder_without_volumes_and_a_wrong_source_are_told(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"there are no volumes here .*; it holds 1 other files"):
        prepared(tmp_path, tmp_path / "raw")
    with pytest.raises(ValueError, match="did you mean 'folders'"):
        prepared(tmp_path, tmp_path / "raw", source="foldrs")
    with pytest.raises(ValueError, match="expected the smaller one first"):
        prepared(tmp_path, tmp_path / "raw", window=(99.0, 1.0))


def test_the_same_settings_make_the_same_bytes(tmp_path: Path) -> None:
    for number in range(4):
        write_nifti(tmp_path / "raw" / f"p{number}.nii", gradient((9, 8, 8), number))
    both = []
    for name in ("a", "b"):
        prepared(tmp_path / name, tmp_path / "raw")
        both.append({file.name: file.read_bytes() for file in (tmp_path / name / "prepared").iterdir()})
    assert both[0] == both[1]


def test_canonical_of_an_unknown_orientation_is_the_volume_itself() -> None:
    volume = Volume(gradient())
    assert canonical(volume) is volume
