"""Classes of voxels learnt on an encoder's maps, and the stage that writes what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.dense.masks.scores import Regions, confusion_of
from sslflow.dense.volumes.segmentation import segment_volumes
from sslflow.dense.volumes.segmenter import VolumeSegmenter
from sslflow.drawing.overlay import enlarged, stacked
from sslflow.drawing.slices import three
from sslflow.drawing.stills import stills
from sslflow.examination.where.found import Way
from sslflow.features.voxels import voxels
from sslflow.ingest.volumes.prepare import prepare
from sslflow.networks.volumes import VolumeEncoder
from sslflow.reporting.images.prepared import annotated
from sslflow.reporting.where import section as where
from sslflow.reporting.where.rows import Rows
from sslflow.runtime.files import write_json
from sslflow.settings.file import content
from sslflow.stages import segment_volumes as stage
from tests.conftest import ROOT
from tests.volume_fixtures import write_nifti

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks with a bright and a dark ball each, in noise: what is where can be read off the values."""
    folder = tmp_path_factory.mktemp("volumes")
    for patient in range(10):
        numbers = np.random.default_rng(patient)
        values, tissues = numbers.normal(0, 8, (16, 16, 32)), np.zeros((16, 16, 32), np.uint8)
        for start, (number, value) in ((0, (1, 100)), (16, (2, -100))):
            centre = np.array([8, 8, start + 8]) + numbers.uniform(-2, 2, 3)
            inside = np.linalg.norm(np.indices(values.shape) - centre[:, None, None, None], axis=0) < 5.5
            values[inside], tissues[inside] = value, number
        write_nifti(folder / "raw" / f"p{patient}.nii", values.astype(np.float32))
        write_nifti(folder / "raw" / f"p{patient}_seg.nii", tissues)
    settings: dict[str, Any] = {"labels": "_seg", "classes": ("background", "bright", "dark"), "side": 16}
    prepare(folder / paths.PREPARED, lambda _: None, source="folder", path=str(folder / "raw"), **settings)
    return folder


def test_voxels_are_counted_as_in_a_loop_and_ignored_ones_left_out() -> None:
    torch.manual_seed(0)
    predicted, actual = torch.randint(3, (2, 4, 4, 4)), torch.randint(3, (2, 4, 4, 4))
    actual[0, 0] = 255
    found = confusion_of(predicted, actual, 3)
    for n, a, b in np.ndindex(2, 3, 3):
        assert found[n, a, b] == ((actual[n] == a) & (predicted[n] == b)).sum()
    parts = (found.diagonal(dim1=1, dim2=2), found.sum(dim=1), found.sum(dim=2), found.sum(dim=0))
    scores = Regions(*(part.numpy() for part in parts))
    known = actual != 255
    for label in range(3):
        here, there = (predicted == label) & known, actual == label
        both = int((here & there).sum())
        assert scores.ious[label] == pytest.approx(both / int((here | there).sum()))
        assert scores.dices[label] == pytest.approx(2 * both / (int(here.sum()) + int(there.sum())))


@pytest.mark.parametrize("width", [0, 4])
@pytest.mark.parametrize(
    "network", [{"width": 4}, {"width": 4, "stem_stride": 4}, {"name": "vit", "width": 32, "depth": 1}]
)
def test_logits_are_as_large_as_the_block(width: int, network: dict[str, Any]) -> None:
    model = VolumeSegmenter(VolumeEncoder(1, 16, **network), 3, width=width)
    assert model(torch.randn(2, 1, 16, 16, 16)).shape == (2, 3, 16, 16, 16)


def test_what_can_be_read_off_the_values_is_learnt(prepared: Path) -> None:
    dataset = Dataset[Any](prepared / paths.PREPARED)

    def made() -> VolumeEncoder:
        torch.manual_seed(7)
        return VolumeEncoder(1, 16, width=4, stem_stride=1)

    settings: dict[str, Any] = {"fractions": (1.0,), "width": 8, "epochs": 1, "min_steps": 40, "batch_size": 4}
    found = [*segment_volumes(made, dataset, CPU, 0, ("frozen",), **settings)]
    again = [*segment_volumes(made, dataset, CPU, 0, ("frozen",), **settings)]
    assert len(found) == 1
    assert found[0].covered == (0, 1, 2)
    assert found[0].scores.miou > 0.7
    assert found[0].scores.dice > found[0].scores.miou
    assert found[0].scores.actual.sum() == 4 * 16**3
    assert set(found[0].masks) == set(dataset.rows("test").tolist())
    assert np.array_equal(found[0].scores.confusion, again[0].scores.confusion)


def test_the_stage_keeps_what_the_report_shows(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    params = content(ROOT / "recipes" / "volumes.yaml")
    params["data"]["side"], params["encoder"]["width"] = 16, 4
    params["segment_volumes"] |= {"fractions": [1.0], "min_steps": 6, "epochs": 1, "batch_size": 4}
    params["run"] |= {"methods": [], "segment_volumes": [], "seeds": [0]}
    write_json(Path("params.yaml"), params)
    for name in ("random", "scratch"):
        stage.main(name, 0)
    metrics = json.loads(paths.metrics("segment_volumes", "random-0").read_text())
    assert metrics["blocks_100pct"] == 16
    assert {"linear_miou_100pct", "frozen_dice_100pct", "covered_100pct"} <= set(metrics)
    dataset = Dataset[Any]()
    rows = Rows(params, [0], dataset)
    assert rows.names("miou") == ["random", "scratch"]
    (value,) = rows.found.values("scratch", "miou", Way("tuned", 1.0))
    tuned = json.loads(paths.metrics("segment_volumes", "scratch-0").read_text())
    assert value == pytest.approx(tuned["tuned_miou_100pct"])
    kept = pq.read_table(paths.segmented_volumes("random", 0) / "masks.parquet")
    assert set(kept["row"].to_pylist()) == set(dataset.rows("test").tolist())
    shown = where.section(rows, 0)
    assert shown is not None
    assert shown["volumes"]
    assert shown["heads"] == [("voxels, mIoU", 3)]
    (_, examples), *_ = shown["masks"]["examples"]
    assert [title for title, _ in examples[0].tiles] == ["block", "truth", "prediction", "errors"]
    assert examples[0].tiles[0][1].height == 3 * examples[0].tiles[0][1].width + 2 * 4


def test_without_label_volumes_the_stage_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_nifti(tmp_path / "raw" / "a.nii", np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    prepare(paths.PREPARED, lambda _: None, source="folder", path="raw", side=16)
    write_json(Path("params.yaml"), content(ROOT / "recipes" / "volumes.yaml"))
    stage.main("random", 0)
    assert json.loads(paths.metrics("segment_volumes", "random-0").read_text()) == {}


def test_slices_are_axial_coronal_and_sagittal_with_up_at_the_top() -> None:
    volume = np.zeros((4, 4, 4), np.uint8)
    volume[3, 2, 2], volume[2, 3, 2], volume[2, 2, 3] = 1, 2, 3  # right, front, above of the middle
    axial, coronal, sagittal = three(volume)
    assert (axial[1, 3], axial[0, 2]) == (1, 2)
    assert (coronal[1, 3], coronal[0, 2]) == (1, 3)
    assert (sagittal[1, 3], sagittal[0, 2]) == (2, 3)
    for plane, own in zip(three(torch.from_numpy(volume)), (axial, coronal, sagittal), strict=True):
        assert np.array_equal(plane.numpy(), own)
    page = np.asarray(stacked([enlarged(one[None], 8) for one in (axial, coronal)]))[..., 0]
    large = [one.repeat(2, axis=0).repeat(2, axis=1) for one in (axial, coronal)]
    assert np.array_equal(page, np.concatenate([large[0], np.full((4, 8), 255), large[1]]))


def test_the_report_says_what_is_known_of_blocks_and_how_they_are_shown(prepared: Path) -> None:
    dataset = Dataset[Any](prepared / paths.PREPARED)
    known, shown = annotated(dataset, {})
    trained, tested = (len(dataset.annotated_rows(split, "mask")) for split in ("train", "test"))
    assert known.startswith(f"{trained} blocks to train on and {tested} to test on have label volumes, of ")
    assert "classes of voxels: background" in known
    assert shown == "Pictures of a block are its middle axial slice, the front above, the right on the right."
    rows = np.arange(2)
    volumes = dataset.read(rows)["volumes"].numpy()
    assert np.array_equal(stills(dataset, rows)[:, :, 0, 1], volumes[:, :, 1, -1, volumes.shape[-1] // 2])


def test_the_row_of_voxels_is_the_means_of_parts(prepared: Path) -> None:
    dataset = Dataset[Any](prepared / paths.PREPARED)
    rows = np.arange(3)
    found = voxels(dataset, rows, CPU)
    blocks = dataset.read(rows)["volumes"].float()
    assert found.shape == (3, 512)
    assert float(found[1, 0]) == pytest.approx(float(blocks[1, 0, :2, :2, :2].mean()))
    assert float(found[2, -1]) == pytest.approx(float(blocks[2, 0, -2:, -2:, -2:].mean()))
