"""The nearest images are the nearest, by the encoder that made the table."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from use_fixtures import small

from sslflow.networks.saved import save_encoder
from sslflow.use import search as searching
from sslflow.use.embed import embed_folder
from sslflow.use.encoder import open_encoder
from sslflow.use.search import encoder_of, search, write_sheet

CPU = torch.device("cpu")


@pytest.fixture
def table(folder: Path, file: Path, tmp_path: Path, decoded: list[str]) -> Path:
    embed_folder(folder, open_encoder(str(file)), tmp_path / "features.parquet", CPU, print, batch=4)
    return tmp_path / "features.parquet"


def test_neighbours_are_those_of_the_whole_table(table: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "ROWS", 5)
    content = pq.read_table(table)
    features = np.array(content["features"].to_pylist(), np.float64)
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    asked = [3, 17]
    images = [folder / content["path"][row].as_py() for row in asked]
    found = search(images, table, encoder_of(table), CPU, top=6)
    for row, hits in zip(asked, found, strict=True):
        scores = directions @ directions[row]
        nearest = np.argsort(-scores)[:6]
        assert [hit.path for hit in hits] == [content["path"][one].as_py() for one in nearest]
        np.testing.assert_allclose([hit.score for hit in hits], scores[nearest], atol=1e-5)
        assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert len(search(images[:1], table, encoder_of(table), CPU, top=99)[0]) == 22
    with pytest.raises(ValueError, match="--top: expected 1 or more, found 0"):
        search(images, table, encoder_of(table), CPU, top=0)


def test_equal_images_come_in_the_tables_order_and_one_without_direction_is_last(
    folder: Path, file: Path, tmp_path: Path, decoded: list[str]
) -> None:
    out, encoder = tmp_path / "f.parquet", open_encoder(str(file))
    embed_folder(folder, encoder, out, CPU, print, batch=4)
    content = pq.read_table(out)
    rows, own = content.to_pydict(), encoder.embed([folder / "a" / "04.png"])[0]
    rows["features"] = [(own if row in (4, 9, 20) else -own).tolist() for row in range(22)]
    rows["features"][0] = [0.0] * 32
    pq.write_table(pa.table(rows, schema=content.schema), out)
    (hits,) = search([folder / "a" / "04.png"], out, encoder, CPU, top=99)
    assert [hit.path for hit in hits[:4]] == [rows["path"][row] for row in (4, 9, 20, 0)]
    assert [round(hit.score, 5) for hit in hits] == [1, 1, 1, 0, *[-1] * 18]


def test_a_sheet_shows_each_image_and_its_neighbours(table: Path, folder: Path, tmp_path: Path) -> None:
    images = [folder / "a" / "03.png", folder / "a" / "07.png"]
    found = search(images, table, encoder_of(table), CPU, top=4)
    (folder / found[1][2].path).unlink()
    said: list[str] = []
    write_sheet(tmp_path / "sheet.png", images, found, folder, said.append)
    assert [line.partition(": ")[2] for line in said] == [
        "can't be drawn: not there: a link that leads nowhere, or removed meanwhile"
    ]
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[0] > 2 * searching.SIDE
    assert sheet.shape[1] > 5 * searching.SIDE
    assert (sheet == (200, 200, 200)).all(axis=2).sum() >= searching.SIDE**2


def test_another_encoder_or_file_is_refused(table: Path, file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.safetensors"
    shutil.copy(file, moved)
    other = small()
    with torch.no_grad():
        other.network.conv1.weight.mul_(2)
    save_encoder(other, file)
    with pytest.raises(ValueError, match="its weights have changed since"):
        encoder_of(table)
    assert encoder_of(table, str(moved)).name == str(moved)
    file.unlink()
    with pytest.raises(ValueError, match="no such file of weights"):
        encoder_of(table)
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "other.parquet")
    for place, says in (
        (tmp_path / "other.parquet", "not a table of `sslflow embed`"),
        (tmp_path / "none.parquet", "there is no such table"),
        (moved, "damaged"),
    ):
        with pytest.raises(ValueError, match=says):
            encoder_of(place)
