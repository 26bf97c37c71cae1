"""Features on the disk: parts of them."""

from __future__ import annotations

import numpy as np
import torch

from sslflow.features.store import FeatureStore
from sslflow.runtime import parts
from sslflow.runtime.files import write_json


def test_a_part_is_mapped_where_its_rows_follow_each_other_and_copied_elsewhere(tmp_path) -> None:
    kept = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.save(tmp_path / "features.npy", kept)
    write_json(tmp_path / "meta.json", {"encoder_sha256": ""})
    store = FeatureStore(tmp_path)
    for rows in (np.arange(4, 17), np.array([1, 2, 5]), np.arange(0), np.array([7])):
        part = store.part(rows)
        assert torch.equal(part, torch.from_numpy(kept[rows]))
        part += 1  # reaches no file
    assert np.array_equal(np.load(tmp_path / "features.npy"), kept)


def test_many_rows_that_lie_apart_are_mapped_from_a_copy_without_a_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "HELD", 0)
    monkeypatch.setattr(parts, "PART", 3 * 4 * 5)  # 5 rows at a time
    kept = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save(tmp_path / "features.npy", kept)
    write_json(tmp_path / "meta.json", {"encoder_sha256": ""})
    files = sorted(tmp_path.iterdir())
    store = FeatureStore(tmp_path)
    rows = np.flatnonzero(np.arange(40) % 3)
    gathered = store._gathered(rows)
    assert isinstance(gathered, np.memmap)
    assert np.array_equal(gathered, kept[rows])
    assert torch.equal(store.part(rows), torch.from_numpy(kept[rows]))
    assert store.part(np.arange(0)).shape == (0, 3)
    assert sorted(tmp_path.iterdir()) == files
