"""Features on the disk: parts of them."""

from __future__ import annotations

import numpy as np
import torch

from sslflow.features.store import FeatureStore
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
