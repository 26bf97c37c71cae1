"""`prepare` beside a bare loop: both do the same work, and what an image costs is counted without the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import preparing
from sslflow.data.dataset import Dataset


@pytest.fixture
def few_and_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(preparing, "TEXTURE", 600)
    folders = tmp_path / "few", tmp_path / "many"
    for folder, count in zip(folders, (1, 4), strict=True):
        preparing.photographs(folder, count)
    return folders


@pytest.mark.parametrize(("side", "store"), preparing.KEPT.values())
def test_both_keep_the_same(few_and_many: tuple[Path, Path], tmp_path: Path, side: int, store: str) -> None:
    given = {"root": few_and_many[1], "side": side, "store": store, "processes": 1}
    preparing.loops(tmp_path / "bare", **given)
    preparing.prepared(tmp_path / "own", **given)
    kept = (tmp_path / "bare" / "0").read_bytes()
    if store == "jpeg":
        assert kept == (tmp_path / "own/out/images-00000.jpegs").read_bytes()
    else:
        own = Dataset(tmp_path / "own/out").read(np.arange(4))["images"]
        assert kept == own.numpy().tobytes()


def test_the_table_has_what_one_image_more_costs(
    few_and_many: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start takes 5 s, an image 2 ms bare and 3 ms by `prepare`, a quarter of it in the first process; in the second
    round each twice as much."""
    costs = iter([5.002, 5.008, 5.003, 5.012, 5.004, 5.016, 5.006, 5.024, 5.002, 5.008, 5.003, 5.012])
    monkeypatch.setattr(preparing, "KEPT", {"pixels": (8, "raw")})
    monkeypatch.setattr(preparing, "measured", lambda job: next(costs) * np.array([1, 0.25]))
    lines = list(preparing.table(*few_and_many, rounds=3, processes=[1]))
    assert lines[0].startswith("Cost of 4 JPEG files less the first 1,")
    assert lines[-1] == "| pixels | 1 | 2.00 | 3.00 | 0.75 | 0.67 |"
