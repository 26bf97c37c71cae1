"""Shards that are not as they were written."""

from __future__ import annotations

import os

import numpy as np
import pytest

from sslflow.data import whole
from sslflow.data.dataset import Dataset
from sslflow.data.whole import write_hashes
from sslflow.runtime.files import sha256


@pytest.fixture
def shard(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(whole, "_whole", {})
    write_hashes(dataset.folder, {file.name: sha256(file) for file in dataset.folder.glob("images-*.npy")})
    return dataset.folder / "images-00001.npy"


def test_whole_shards_are_read(dataset: Dataset, shard) -> None:
    assert len(Dataset(dataset.folder).read(np.arange(160))) == 160


def test_a_byte_that_changed_is_found_though_the_file_s_time_and_size_are_as_before(dataset: Dataset, shard) -> None:
    before, content = shard.stat(), bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(Dataset(dataset.folder).read(np.arange(50))) == 50, "another shard"
    with pytest.raises(ValueError, match=r"images-00001\.npy: damaged: .* delete it, and `dvc repro"):
        Dataset(dataset.folder).read(np.arange(160))


def test_a_shard_that_is_missing_is_one_sentence(dataset: Dataset, shard) -> None:
    shard.unlink()
    with pytest.raises(ValueError, match=r"images-00001\.npy: missing"):
        Dataset(dataset.folder).read(np.arange(160))


def test_of_large_data_a_process_looks_at_so_much(dataset: Dataset, shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "MOST", 10)
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert len(Dataset(dataset.folder).read(np.arange(160))) == 160
