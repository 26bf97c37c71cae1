"""Shards, manifest and moments as they are written, whatever the fields are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sslflow.ingest import shards
from sslflow.ingest.shards import Moments, ShardWriter
from sslflow.runtime.files import read_json, sha256

FIELDS = {"frames": ("|u1", (2, 3, 4, 4)), "sound": ("<i2", (10,))}
MORE = (("start", pa.float64()),)


def example(row: int, split: str = "train") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    draw = np.random.default_rng(row)
    frames = draw.integers(0, 256, (2, 3, 4, 4), dtype=np.uint8)
    sound = draw.integers(-(2**15), 2**15, 10).astype(np.int16)
    columns = {"path": f"{row // 2}.mp4", "split": split, "label": -1, "group": f"g{row // 2}", "start": row / 4}
    return {"frames": frames, "sound": sound}, columns


def write(folder: Path, count: int, **settings: Any) -> ShardWriter:
    with ShardWriter(folder, FIELDS, MORE, measured="frames") as writer:
        for row in range(count):
            assert writer.add(*example(row, **settings)) == row
    return writer


def test_files_are_what_numpy_saves_in_shards_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * 96 + 95)
    monkeypatch.setattr(shards, "_BLOCK_BYTES", 3 * 96)
    assert len(write(tmp_path, 11)) == 11
    examples = [example(row)[0] for row in range(11)]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *(f"frames-{number:05d}.npy" for number in range(3)),
        "hashes.json",
        "manifest.parquet",
        *(f"sound-{number:05d}.npy" for number in range(3)),
    ]
    for name in FIELDS:
        for number in range(3):
            expected = np.stack([one[name] for one in examples[4 * number : 4 * number + 4]])
            np.save(tmp_path / "expected.npy", expected)
            written = (tmp_path / f"{name}-{number:05d}.npy").read_bytes()
            assert written == (tmp_path / "expected.npy").read_bytes()


def test_the_largest_field_bounds_the_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 40)
    fields = {"mask": ("|u1", (1, 2, 2)), "sound": ("<i2", (10,))}
    with ShardWriter(tmp_path, fields, (), measured="mask") as writer:
        for row in range(5):
            columns = {"path": str(row), "split": "train", "label": -1, "group": str(row)}
            writer.add({"mask": np.zeros((1, 2, 2), np.uint8), "sound": np.zeros(10, np.int16)}, columns)
    assert [len(np.load(tmp_path / f"sound-{number:05d}.npy")) for number in range(3)] == [2, 2, 1]


def test_the_manifest_says_where_each_example_is_and_what_is_known_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * 96)
    monkeypatch.setattr(shards, "_ROW_GROUP", 3)
    write(tmp_path, 7)
    table = pq.read_table(tmp_path / "manifest.parquet")
    assert table.column_names == ["row", "shard", "index", "path", "split", "label", "group", "start"]
    assert table["row"].to_pylist() == list(range(7))
    assert table["shard"].to_pylist() == [0, 0, 0, 0, 1, 1, 1]
    assert table["index"].to_pylist() == [0, 1, 2, 3, 0, 1, 2]
    assert table["group"].to_pylist() == ["g0", "g0", "g1", "g1", "g2", "g2", "g3"]
    assert table["start"].to_pylist() == [row / 4 for row in range(7)]
    assert pq.ParquetFile(tmp_path / "manifest.parquet").num_row_groups == 3


def test_a_column_too_few_or_too_many_is_an_error(tmp_path):
    fields, columns = example(0)
    with pytest.raises(KeyError, match="loud"), ShardWriter(tmp_path, FIELDS, MORE, measured="frames") as writer:
        writer.add(fields, {**columns, "loud": 1.0})
    del columns["start"]
    with pytest.raises(pa.ArrowInvalid), ShardWriter(tmp_path, FIELDS, MORE, measured="frames") as writer:
        writer.add(fields, columns)


def test_an_error_leaves_no_shard_that_has_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_BLOCK_BYTES", 2 * 96)

    def interrupted() -> None:
        with ShardWriter(tmp_path, FIELDS, MORE, measured="frames") as writer:
            for row in range(5):
                writer.add(*example(row))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert not list(tmp_path.glob("*.npy"))


def test_shards_are_known_by_their_hashes(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * 96)
    monkeypatch.setattr(shards, "_BLOCK_BYTES", 2 * 96)
    write(tmp_path, 12)
    found = {file.name: sha256(file) for file in sorted(tmp_path.glob("*.npy"))}
    assert len(found) == 6
    assert list(read_json(tmp_path / "hashes.json").items()) == list(found.items())


def test_mean_and_spread_are_those_of_one_split(tmp_path):
    with ShardWriter(tmp_path, FIELDS, MORE, measured="frames") as writer:
        for row in range(9):
            writer.add(*example(row, split="test" if row % 3 == 0 else "train"))
    shares = np.stack([example(row)[0]["frames"] for row in range(9) if row % 3]) / 255
    mean, std = writer.mean_and_std("train")
    assert mean == pytest.approx(shares.mean(axis=(0, 1, 3, 4)), abs=1e-12)
    assert std == pytest.approx(shares.std(axis=(0, 1, 3, 4)), abs=1e-12)
    assert (writer.count("train"), writer.count("test"), writer.count("pool")) == (6, 3, 0)


def test_moments_don_t_depend_on_the_order_to_the_last_bit():
    draw = np.random.default_rng(0)
    pixels = [draw.integers(0, 256, (3, 5, 7), dtype=np.uint8) for _ in range(200)]
    one_way, another, at_once = Moments(), Moments(), Moments()
    for image in pixels:
        one_way.add(image)
    for image in reversed(pixels):
        another.add(image)
    at_once.add(np.stack(pixels))
    assert one_way.mean_and_std() == another.mean_and_std() == at_once.mean_and_std()


def test_a_single_colour_has_a_spread_to_divide_by():
    moments = Moments()
    moments.add(np.full((2, 1, 3, 3), 51, np.uint8))
    assert moments.mean_and_std() == ((0.2,), (1 / 255,))


def test_one_colour_is_known_by_its_moments():
    pixels = np.full((3, 300, 500), 255, np.uint8) - np.arange(3, dtype=np.uint8)[:, None, None]
    for changed in (False, True):
        pixels[1, 7, 9] -= changed
        moments = Moments()
        moments.add(pixels)
        assert moments.constant != changed
        mean, std = moments.mean_and_std()
        assert mean == pytest.approx(pixels.mean((1, 2)) / 255)
        assert std == pytest.approx(np.maximum(pixels.std((1, 2)), 1) / 255)
