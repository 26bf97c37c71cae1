"""Depth maps beside images: they come to lie where their images' pixels do, and what is wrong with them is said."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import annotation_fixtures as made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from annotation_fixtures import SIZE
from data_fixtures import encoded, in_process, write
from PIL import Image

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.ingest.images import prepare as module
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.images.sources import _pictures
from sslflow.ingest.listing import write_listing
from sslflow.runtime.files import read_json
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def without_processes(monkeypatch):
    monkeypatch.setattr(module, "examine_all", in_process)


def steps(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A slope of its own for each number, uint16, two columns of which are not known."""
    found = 1000 * (number + 1) + np.arange(size[0] * size[1]).reshape(size[1], size[0])
    found[:, :2] = 0
    return found.astype(np.uint16)


def png(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "PNG")


def maps(folder: Path, numbers: range) -> Path:
    for number in numbers:
        write(folder / f"{number:02}.png", png(steps(number)))
    return folder


class Prepared:
    """What `prepare` made and said."""

    def __init__(self, tmp_path: Path, raw: Path, depth: str, **settings: Any) -> None:
        self.lines: list[str] = []
        settings = {"source": "folder", "image_size": 24, "channels": 3, "fit": "pad"} | settings
        out = tmp_path / "out"
        self.counts = prepare(out, self.lines.append, path=str(raw), depth=depth, **settings)
        self.dataset = Dataset(out)
        self.facts = read_json(out / "dataset.json")
        with (out / "depth.csv").open(newline="", encoding="utf-8") as handle:
            self.flaws = {Path(name).stem: reason for name, reason in list(csv.reader(handle))[1:]}

    def names(self, *splits: str, known: bool = False) -> list[str]:
        rows = [self.dataset.annotated_rows(one, "depth") if known else self.dataset.rows(one) for one in splits]
        return sorted(Path(name).stem for name in self.dataset.column("path", np.concatenate(rows)))

    def depth(self) -> dict[str, np.ndarray]:
        rows = np.arange(len(self.dataset))
        found = self.dataset.read(rows)["depth"].numpy()
        return {Path(name).stem: one[0] for name, one in zip(self.dataset.column("path"), found, strict=True)}


def test_maps_come_to_lie_where_their_images_do(tmp_path):
    raw = made.images(tmp_path / "raw", range(10))
    found = Prepared(tmp_path, raw, f"png:{maps(raw / 'depth', range(10))}", depth_scale=0.01)
    assert found.names("train", "test") == [f"{number:02}" for number in range(10)]
    assert (len(found.names("test")), found.names("pool")) == (2, [])
    for name, own in found.depth().items():
        wanted = np.zeros((24, 24), np.float32)
        wanted[2:22] = steps(int(name)) * np.float32(0.01)
        assert np.allclose(own, wanted, rtol=1e-6)
    known = [(steps(int(name)) * 0.01)[:, 2:] for name in found.names("train")]
    facts = found.facts["beside"]["depth"]
    assert facts["unit"] == "m"
    assert facts["mean_log"] == pytest.approx(np.log(known).mean(), rel=1e-5)
    assert facts["std_log"] == pytest.approx(np.log(known).std(), rel=1e-4)
    assert facts["known"] == pytest.approx(22 * 20 / 24**2)
    assert found.counts["with_depth"] == 10
    assert found.counts["images"] == 10
    assert found.flaws == {}
    assert not [line for line in found.lines if line.startswith("warning")]


@pytest.mark.parametrize(("fit", "part"), [("crop", np.s_[:, 2:22]), ("pad", np.s_[:, :])])
def test_a_smaller_image_has_the_depth_of_the_nearest_pixels(tmp_path, fit, part):
    raw = made.images(tmp_path / "raw", range(4))
    found = Prepared(
        tmp_path, raw, f"png:{maps(tmp_path / 'depth', range(4))}", fit=fit, image_size=10, depth_scale=1.0
    )
    for name, own in found.depth().items():
        there = np.unique(steps(int(name))[part])
        assert set(np.unique(own[own > 0])) <= set(there.tolist())
        assert (own[2:8] > 0).mean() > 0.85


def test_a_map_of_an_image_that_is_stored_on_its_side(tmp_path):
    """As stored, and as it is looked at: both come to lie as the picture does."""
    raw, folder = tmp_path / "raw", tmp_path / "depth"
    upright = np.zeros((24, 20), np.uint16)
    upright[:6] = 500
    upright[6:] = 900
    for number, own in enumerate(
        (upright, np.asarray(Image.fromarray(upright.astype(np.int32)).rotate(90, expand=True)))
    ):
        picture = made.picture(number)
        exif = Image.Exif()
        exif[0x0112] = 6
        write(raw / f"{number}.jpg", encoded(picture, "JPEG", exif=exif))
        write(folder / f"{number}.png", png(own.astype(np.uint16)))
    for number in (2, 3):
        write(raw / f"{number}.jpg", encoded(made.picture(number), "JPEG"))
        write(folder / f"{number}.png", png(steps(number)))
    found = Prepared(tmp_path, raw, f"png:{folder}", fit="stretch", depth_scale=1.0)
    assert found.flaws == {}
    both = found.depth()
    assert np.array_equal(both["0"], both["1"])
    assert (both["0"][:5] == 500).all()
    assert (both["0"][7:] == 900).all()


def test_maps_that_are_wrong(tmp_path):
    raw = made.images(tmp_path / "raw", range(14))
    folder = maps(raw / "depth", range(7))
    coloured = encoded(Image.new("RGB", SIZE), "PNG")
    bad = {
        "07": (png(steps(7, (24, 21))), "depth map of another size than its image: 24 x 21, the image is 24 x 20"),
        "08": (png(np.zeros(SIZE[::-1], np.uint16)), "depth map of zeros alone, in which nothing is known"),
        "09": (encoded(Image.new("L", SIZE, 9), "PNG"), "depth map of 8 bits: expected a PNG of grey with 16 bits"),
        "10": (coloured, "depth map of colours: expected a PNG of grey with 16 bits, found RGB"),
        "11": (png(steps(1))[:-40], "depth map that is damaged"),
        "12": (b"hello", "depth map that is no PNG"),
    }
    for name, (content, _) in bad.items():
        write(folder / f"{name}.png", content)
    write(folder / "99.png", png(steps(1)))
    write(folder / "note.txt", b"metres")
    found = Prepared(tmp_path, raw, f"png:{folder}")
    assert found.flaws.pop("99") == "depth map without an image: image that is not below data.path"
    assert found.flaws.keys() == bad.keys()
    for name, reason in found.flaws.items():
        assert reason.startswith(bad[name][1])
    assert found.names("train", "test", known=True) == [f"{number:02}" for number in range(7)]
    assert set(found.names("test")) <= {f"{number:02}" for number in range(7)}
    every = found.names("train", "test", "pool")
    assert set(every) == {f"{number:02}" for number in range(14)}
    assert set(found.names("pool")) >= {*bad, "13"}
    assert found.counts["depth_unusable"] == 6
    assert (found.counts["depth_left_out"], found.counts["with_depth"], found.counts["without_depth"]) == (1, 7, 7)
    assert (found.counts["duplicates"], found.counts["quarantined"]) == (0, 0)
    said = "\n".join(found.facts["warnings"])
    for words in (
        "1 x depth map of zeros alone",
        "7 images have none that can be used",
        "1 x depth map without an image",
        "depth.csv",
    ):
        assert words in said
    assert "no PNG, and no depth maps" in said


def test_a_map_of_an_image_that_is_not_there_takes_no_other_ones_place(tmp_path):
    """Both would be found by the last part of their names."""
    raw, folder = tmp_path / "raw", tmp_path / "depth"
    for number in range(4):
        write(raw / f"kitchen/{number}.png", encoded(made.picture(number), "PNG"))
        write(folder / f"kitchen/{number}.png", png(steps(number)))
    write(folder / "bathroom/2.png", png(steps(8)))
    found = Prepared(tmp_path, raw, f"png:{folder}", depth_scale=1.0)
    assert found.flaws == {"2": "depth map without an image: image that is not below data.path"}
    assert {name: int(own.max()) for name, own in found.depth().items()} == {
        str(number): int(steps(number).max()) for number in range(4)
    }


def test_too_many_that_are_wrong_stop_the_run(tmp_path):
    raw = made.images(tmp_path / "raw", range(4))
    folder = maps(tmp_path / "depth", range(1))
    for number in (1, 2, 3):
        write(folder / f"{number:02}.png", png(np.zeros(SIZE[::-1], np.uint16)))
    with pytest.raises(
        ValueError, match=r"data\.depth: 3 of 4 depth maps can't be used, more than data\.max_bad = 0\.5"
    ):
        Prepared(tmp_path, raw, f"png:{folder}")
    assert not (tmp_path / "out").exists()
    write(folder / "00.png", b"")
    with pytest.raises(ValueError, match="4 of 4 depth maps can't be used, there is nothing to learn from"):
        Prepared(tmp_path, raw, f"png:{folder}", max_bad=1.0)


def test_class_folders_keep_their_classes_and_splits(tmp_path):
    for number in range(12):
        write(tmp_path / f"raw/{'ab'[number % 2]}/{number:02}.png", encoded(made.picture(number), "PNG"))
        write(tmp_path / f"depth/{'ab'[number % 2]}/{number:02}.png", png(steps(number)))
    found = Prepared(tmp_path, tmp_path / "raw", f"png:{tmp_path / 'depth'}", source="imagefolder", test_fraction=0.34)
    assert found.dataset.classes == ["a", "b"]
    assert found.counts["depth_test"] == len(found.names("test")) == 4
    (tmp_path / "raw/depth").mkdir()
    with pytest.raises(ValueError, match="whose folders are classes: move it out of there"):
        Prepared(tmp_path, tmp_path / "raw", f"png:{tmp_path / 'raw/depth'}", source="imagefolder")


def test_masks_and_depth_of_the_same_images(tmp_path):
    raw = made.images(tmp_path / "raw", range(8))
    masks, folder = made.masks(raw / "masks", range(8)), maps(raw / "depth", range(8))
    found = Prepared(tmp_path, raw, f"png:{folder}", annotations=f"masks:{masks}")
    assert found.counts["images"] == 8
    assert found.dataset.truth is not None
    rows = found.dataset.annotated_rows("test", "depth")
    assert np.array_equal(rows, found.dataset.annotated_rows("test", "mask"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"depth": "tiff:depth"}, "expected png:FOLDER, a folder of grey PNGs with 16 bits, found tiff:depth"),
        ({"depth": "depth"}, "expected png:FOLDER"),
        ({"depth": "png:nowhere"}, "there is no folder nowhere"),
        ({"source": "samples:emoji"}, "is for data.source folder or imagefolder, found samples:emoji"),
        ({"probe_source": "imagefolder"}, "set data.probe_source to same"),
        ({"depth": "png:empty"}, "expected depth maps, a PNG for each image .* found no PNG file, and 0 other files"),
        ({"depth": "png:others"}, r"found 1 PNG files, none of them called as an image \(z.png\)"),
    ],
)
def test_settings_that_can_not_be(tmp_path, monkeypatch, settings, said):
    monkeypatch.chdir(tmp_path)
    made.images(tmp_path / "raw", range(4))
    maps(tmp_path / "depth", range(4))
    (tmp_path / "empty").mkdir()
    write(tmp_path / "others/z.png", png(steps(0)))
    with pytest.raises(ValueError, match=rf"data\.depth.*{said}"):
        Prepared(tmp_path, Path("raw"), **{"depth": "png:depth", **settings})


def test_the_listing_names_the_maps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.images(tmp_path / "raw", range(2))
    maps(tmp_path / "depth", range(2))
    write_listing(tmp_path / "list.csv", source="folder", path="raw", depth="png:depth")
    with (tmp_path / "list.csv").open(newline="") as handle:
        assert {(row[0], row[1]) for row in csv.reader(handle)} >= {("depth", "00.png"), ("path", "00.png")}


def test_shipped_rooms(tmp_path, monkeypatch):
    """Some of them, as their file has them."""
    monkeypatch.chdir(ROOT)
    table = pq.read_table(paths.SAMPLES / "rooms" / "rooms.parquet")
    few = pa.concat_tables([table.slice(0, 12), table.slice(table.num_rows - 6)])
    pq.write_table(few, tmp_path / "rooms.parquet")
    monkeypatch.setattr(module, "open_source", lambda *_, **__: _pictures([tmp_path / "rooms.parquet"], "category"))
    found = Prepared(tmp_path, tmp_path, "", source="samples:rooms", image_size=64)
    assert [len(found.names(split, known=True)) for split in ("train", "test")] == [12, 6]
    rows = {row["item"]: row for row in few.to_pylist()}
    for name, own in found.depth().items():
        steps = np.asarray(Image.open(io.BytesIO(rows[name]["depth"])))
        assert np.allclose(own, 0.02 * steps, rtol=1e-6)
