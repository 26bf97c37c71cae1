"""Prepared data on the disk, images and clips alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

from sslflow import paths
from sslflow.data import dataset as module
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat, ImageFormat, described, format_of
from sslflow.runtime.files import read_json, write_json
from tests.av_fixtures import MemoryClips
from tests.conftest import write_dataset

IMAGES = np.arange(7 * 3 * 4 * 4, dtype=np.uint8).reshape(7, 3, 4, 4)


@pytest.fixture
def images(tmp_path: Path) -> Dataset[ImageFormat]:
    splits = ["test", "train", "train", "pool", "test", "train", "pool"]
    return write_dataset(tmp_path / "images", IMAGES, np.array([0, 1, -1, -1, 1, 0, -1]), splits, shard=3)


@pytest.fixture
def clips(tmp_path: Path) -> tuple[MemoryClips, Dataset[ClipFormat]]:
    made = MemoryClips(12)
    return made, Dataset(made.write(tmp_path / "clips", shard=5))


def test_images_are_read_across_shards_in_any_order(images):
    rows = np.array([6, 0, 3, 3, 2])
    read = images.read(rows)
    assert list(read) == ["images"]
    assert torch.equal(read["images"], torch.from_numpy(IMAGES[rows]))
    assert torch.equal(images.read(torch.from_numpy(rows))["images"], read["images"])
    assert images.read(rows[:0])["images"].shape == (0, 3, 4, 4)


def test_clips_are_read_with_the_groups_that_views_need(clips):
    made, dataset = clips
    assert dataset.format == made.format
    rows = np.array([23, 1, 7, 0, 7])
    read, expected = dataset.read(rows), made.read(rows)
    assert list(read) == ["frames", "sound", "groups"]
    assert all(torch.equal(read[name], expected[name]) for name in read)
    assert read["groups"].dtype == torch.int64


def test_of_clips_some_frames_are_read(clips):
    made, dataset = clips
    rows, frames = np.array([23, 1, 7, 0]), torch.tensor([[0, 3], [2, 1], [5, 5], [4, 0]])
    read, expected = dataset.read(rows, frames), made.read(rows, frames)
    assert list(read) == ["frames", "sound", "frame_numbers", "groups"]
    assert all(torch.equal(read[name], expected[name]) for name in read)
    assert torch.equal(read["frames"][1, 0], dataset.read(rows)["frames"][1, 2])


def test_splits_and_labels(images):
    assert len(images) == 7
    assert images.rows("test").tolist() == [0, 4]
    assert images.labelled_rows("train").tolist() == [1, 5]
    assert images.pretraining_rows.tolist() == [3, 6]
    assert images.labelled
    assert images.labels.tolist() == [0, 1, -1, -1, 1, 0, -1]


def test_without_a_pool_the_training_split_is_pretrained_on(clips):
    made, dataset = clips
    assert dataset.pretraining_rows.tolist() == dataset.rows("train").tolist() == made.rows("train").tolist()


def test_columns_of_all_rows_and_of_some(clips):
    made, dataset = clips
    for name, expected in made.columns.items():
        np.testing.assert_array_equal(dataset.column(name), expected)
        np.testing.assert_array_equal(dataset.column(name, np.array([5, 2])), expected[[5, 2]])
    assert dataset.column("path", np.array([4])).tolist() == ["2.mp4"]
    assert dataset.column("audible").dtype == bool
    with pytest.raises(KeyError, match="loud"):
        dataset.column("loud")


def test_only_the_columns_that_are_asked_for_are_read(images, monkeypatch):
    asked = []
    whole = pq.ParquetFile.read

    def read(self, columns=None, **settings):
        asked.append(columns)
        return whole(self, columns, **settings)

    monkeypatch.setattr(pq.ParquetFile, "read", read)
    images.read(images.pretraining_rows)
    images.read(images.pretraining_rows)
    assert sorted(asked) == [["index"], ["shard"], ["split"]]


def test_columns_are_of_one_manifest_even_where_the_data_is_prepared_anew_meanwhile(images):
    assert images.column("split")[0] == "test"
    shutil.rmtree(images.folder)
    write_dataset(images.folder, IMAGES[:2], np.array([0, 0]), ["train"] * 2)
    assert images.column("label").tolist() == [0, 1, -1, -1, 1, 0, -1]


def test_groups_are_numbered_in_order(tmp_path):
    made = MemoryClips(3)
    made.columns["group"] = np.array(["b", "ä", "b", "Z", "ä", "10"])
    dataset = Dataset(made.write(tmp_path / "clips"))
    # As NumPy sorts text: checkpoints and held-out sources depend on it.
    assert dataset.groups.tolist() == np.unique(made.columns["group"], return_inverse=True)[1].tolist()
    assert dataset.groups.dtype == np.int64


def test_without_labels_there_is_none_to_be_found(images):
    blind = Dataset(images.folder, labels=False)
    assert (blind.classes, blind.labelled) == ([], False)
    assert (blind.labels == -1).all()
    assert (blind.column("label", np.array([0, 4])) == -1).all()
    assert blind.column("path").tolist() == images.column("path").tolist()


def test_many_shards_need_few_open_files(tmp_path, monkeypatch):
    """A process may have 1,024 files open, often, and half a million photographs make more shards than that."""
    monkeypatch.setattr(module, "OPEN_SHARDS", 8)
    many = np.arange(60 * 4, dtype=np.uint8).reshape(60, 1, 2, 2)
    dataset = write_dataset(tmp_path / "many", many, np.zeros(60, np.int64), ["train"] * 60, shard=1)
    before = psutil.Process().num_fds()
    for rows in (np.arange(60), np.arange(60)[::-1]):
        assert torch.equal(dataset.read(rows)["images"], torch.from_numpy(many[rows]))
    assert psutil.Process().num_fds() - before <= 8


@pytest.mark.parametrize(
    ("folder", "stage"), [("data/prepared", "prepare"), ("data/domains/source", "domains"), ("data/clips", "clips")]
)
def test_what_is_missing_or_of_an_earlier_version_is_said_with_the_stage_to_run(folder, stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"^{folder}: nothing prepared here; run `dvc repro {stage}` first$"):
        Dataset(Path(folder))
    Path(folder).mkdir(parents=True)
    file = Path(folder) / ("clips.json" if stage == "clips" else "dataset.json")
    write_json(file, {"classes": [], "mean": [0.5], "std": [0.2]})
    with pytest.raises(ValueError, match=rf"^{folder}: made by an earlier version .*; run `dvc repro {stage}`$"):
        Dataset(Path(folder))


@pytest.mark.parametrize(
    "form",
    [ImageFormat(3, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), ClipFormat(8, 16, 4, 8000, 2.0, (0.5,) * 3, (0.2,) * 3)],
)
def test_a_format_comes_back_from_its_file(form, tmp_path):
    write_json(tmp_path / "dataset.json", described(form, ["a", "b"]))
    facts = read_json(tmp_path / "dataset.json")
    assert format_of(facts) == form
    assert facts["classes"] == ["a", "b"]
    with pytest.raises(ValueError, match="one of images, clips, text, volumes, found one of smells"):
        format_of({**facts, "kind": "smells"})


def test_the_default_folder_is_what_prepare_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(paths.PREPARED, IMAGES, np.zeros(7, np.int64), ["train"] * 7)
    assert Dataset().folder == paths.PREPARED
