"""Features of a folder: each is its image's, what can't be used is said, and a stopped run goes on where it was."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from use_fixtures import small

from sslflow.networks.saved import save_encoder
from sslflow.runtime.files import read_csv
from sslflow.use import folder as through
from sslflow.use.embed import embed_folder
from sslflow.use.encoder import open_encoder
from sslflow.use.folder import Done
from sslflow.use.parts import KEY

CPU = torch.device("cpu")


def made(folder: Path, weights: Path, out: Path, said: list[str] | None = None, **settings: Any) -> Done:
    tell = (said if said is not None else []).append
    return embed_folder(folder, open_encoder(str(weights)), out, CPU, tell, **{"batch": 4, **settings})


def features(file: Path, column: str = "features") -> tuple[list[str], np.ndarray]:
    table = pq.read_table(file)
    return table["path"].to_pylist(), np.array(table[column].to_pylist(), np.float32)


def test_a_table_holds_the_features_of_every_image(
    folder: Path, file: Path, tmp_path: Path, decoded: list[str]
) -> None:
    said: list[str] = []
    out = tmp_path / "features.parquet"
    assert made(folder, file, out, said, map=True) == Done(22, 2, 1, 0)
    paths, found = features(out)
    assert paths == [f"a/{n:02d}.png" for n in range(12)] + [f"b/deep/{n:02d}.png" for n in range(12, 22)]
    encoder = open_encoder(str(file))
    np.testing.assert_allclose(found, encoder.embed([folder / path for path in paths]).numpy(), rtol=1e-4, atol=1e-5)
    assert len(np.unique(found.round(4), axis=0)) == 22
    about = json.loads(pq.read_schema(out).metadata[KEY])
    assert about["images"]["mean"] == [0.3, 0.4, 0.5]
    assert (about["sha256"], about["licence"], about["dim"]) == (encoder.sha256, "not stated", 32)
    rows, columns, dim = (about["map"][name] for name in ("rows", "columns", "dim"))
    cells = features(out, "map")[1].reshape(22, rows * columns, dim)
    assert rows * columns > 0
    np.testing.assert_allclose(cells.mean(axis=1), found, rtol=1e-4, atol=1e-5)
    bad = {row["path"]: row["reason"] for row in read_csv(tmp_path / "features.quarantine.csv")}
    assert list(bad) == ["a/05x.jpg", "b/empty.png"]
    assert bad["b/empty.png"] == "empty file"
    assert said[0].startswith("warning: 2 images can't be used; all of them stand in ")
    assert not list(tmp_path.glob(".*"))


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next folder is read until so many images were seen; then the user stops it."""
    whole = through.examine_all

    def some(*given: Any) -> Iterator[Any]:
        monkeypatch.setattr(through, "examine_all", whole)
        for number, item in enumerate(whole(*given)):
            if number == count:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(through, "examine_all", some)


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    folder: Path, file: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "features.parquet"
    made(folder, file, whole)
    assert len(decoded) == 24
    out.write_text("of before")
    stop_after(15, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        made(folder, file, out)
    assert out.read_text() == "of before"
    decoded.clear()
    said: list[str] = []
    assert made(folder, file, out, said) == Done(22, 2, 1, 12)
    assert len(decoded) == 12
    assert said[0] == "embed  resumed: 12 of 24 images are done already"
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_only_what_is_the_same_is_taken_over(
    folder: Path, file: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "features.parquet"
    stop_after(15, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        made(folder, file, out)
    Image.new("RGB", (9, 9), (200, 20, 20)).save(folder / "a" / "02.png")
    decoded.clear()
    assert made(folder, file, out).resumed == 8
    assert "a/02.png" in decoded
    paths, found = features(out)
    again = open_encoder(str(file)).embed([folder / "a" / "02.png"]).numpy()
    np.testing.assert_allclose(found[paths.index("a/02.png")], again[0], rtol=1e-4, atol=1e-5)

    stop_after(15, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        made(folder, file, out)
    other = small()
    with torch.no_grad():
        other.network.conv1.weight.mul_(2)
    save_encoder(other, file)
    assert made(folder, file, out).resumed == 0


@pytest.mark.parametrize("gone", ["a/03.png", "b/deep"])
def test_a_folder_that_changes_meanwhile_is_said(
    gone: str, folder: Path, file: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = through.look

    def then_gone(*given: Any) -> Any:
        found = look(*given)
        place = folder / gone
        place.unlink() if place.is_file() else shutil.rmtree(place)
        return found

    monkeypatch.setattr(through, "look", then_gone)
    with pytest.raises(ValueError, match="have changed while they were read; run it again"):
        made(folder, file, tmp_path / "features.parquet")
    monkeypatch.undo()
    assert made(folder, file, tmp_path / "features.parquet").images < 22


def test_workers_change_no_bit(folder: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With processes of their own, as on the command line."""
    monkeypatch.setattr(through, "PART", 4)
    for name, workers in (("one", 1), ("two", 2)):
        assert made(folder, file, tmp_path / f"{name}.parquet", workers=workers) == Done(22, 2, 1, 0)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_what_is_lost_in_eight_bits_is_said_by_a_resumed_run_too(
    tmp_path: Path, file: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    for number in range(9):
        pixels = np.random.default_rng(number).integers(300, 900, (20, 20)).astype(np.uint16)
        Image.fromarray(pixels).save(root / f"{number}.png")
    said: list[str] = []
    stop_after(6, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        made(root, file, tmp_path / "f.parquet", said)
    made(root, file, tmp_path / "f.parquet", said)
    (loss,) = [line for line in said if "less than an eighth of the range" in line]
    assert loss.startswith("warning: 9 images, such as 0.png, use less")
    encoder = open_encoder(str(file), sixteen_bit=(300.0, 900.0))
    assert encoder.images.sixteen_bit == (300.0, 900.0)
    brighter = encoder.read(root / "0.png").mean(), open_encoder(str(file)).read(root / "0.png").mean()
    assert brighter[0] > 100 > 10 > brighter[1]


Usage = namedtuple("Usage", "total used free")


def test_what_cannot_be_done_is_said_before_the_work(
    folder: Path, file: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "features.parquet"
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("a")
    for root, place, says in (
        (tmp_path / "nowhere", out, "expected a folder of images, found nothing"),
        (file, out, "expected a folder of images, found a file"),
        (tmp_path / "none", out, "no images here .* it holds 1 other files"),
        (folder, tmp_path / "features.csv", "a name that ends in .parquet"),
    ):
        with pytest.raises(ValueError, match=says):
            made(root, file, place)
    with pytest.raises(ValueError, match="--batch: expected 1 or more, found 0"):
        made(folder, file, out, batch=0)
    (tmp_path / ".features.parquet.parts").mkdir()
    with (tmp_path / ".features.parquet.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing it"):
            made(folder, file, out)
    monkeypatch.setattr(through.shutil, "disk_usage", lambda place: Usage(9, 9, 1000))
    with pytest.raises(ValueError, match=r"24 images take 0.1 kB each, twice while .* choose another disk"):
        made(folder, file, out)
    assert decoded == []


def test_a_folder_of_broken_images_and_broken_weights_are_said(
    folder: Path, tmp_path: Path, file: Path, decoded: list[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 images can be used"):
        made(broken, file, tmp_path / "f.parquet")
    assert (tmp_path / "f.quarantine.csv").exists()
    encoder = small()
    with torch.no_grad():
        encoder.network.conv1.weight.fill_(torch.nan)
    save_encoder(encoder, file)
    with pytest.raises(ValueError, match="not finite numbers: the weights are damaged"):
        made(folder, file, tmp_path / "f.parquet")
    assert not (tmp_path / "f.parquet").exists()
