"""The clusters of a run, as pseudo-labels."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sslflow import paths
from sslflow.evaluation.clustered import pseudolabels


def test_clusters_are_read_where_they_are_of_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"3\.parquet is missing: seed 3 of simclr .* run `dvc repro pseudolabel`"):
        pseudolabels("simclr", 3, 2)
    file = paths.clustering("simclr", 3)
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"cluster": [4, 1], "confidence": [0.5, 0.25]}), file)
    found = pseudolabels("simclr", 3, 2)
    assert (found.cluster.tolist(), found.confidence.tolist()) == ([4, 1], [0.5, 0.25])
    with pytest.raises(ValueError, match="2 rows for 5 examples; run `dvc repro pseudolabel`"):
        pseudolabels("simclr", 3, 5)
