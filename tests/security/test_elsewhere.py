"""Names and files that would lead out of a folder: nothing else is read, and nothing is written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sslflow.data.dataset import Dataset
from sslflow.ingest.images.captions import read_captions
from sslflow.ingest.images.coco import read_coco
from sslflow.ingest.images.matching import MISSING, Names
from sslflow.ingest.images.voc import XML, read_voc
from sslflow.ingest.records import Masks, Record, Source
from sslflow.networks.weights import tensors
from tests.conftest import write_dataset

SECRET = "what stands elsewhere"
ENTITY = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://%s">]><annotation><filename>a.png</filename>{"<object><name>&x;"}'
LAUGHS = "<!DOCTYPE a [<!ENTITY a0 'ha'>%s]><annotation><object><name>&a20;"
BOX = "</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one image, beside one that must not be found."""
    folder = tmp_path / "images"
    folder.mkdir()
    for place in (folder / "a.png", tmp_path / "secret.png"):
        Image.new("L", (8, 8)).save(place)
    (tmp_path / "secret.txt").write_text(SECRET)
    return folder


@pytest.mark.parametrize("lead", ["../secret.png", "a/../../secret.png", "{}/secret.png", "..\\secret.png"])
def test_tables_find_images_below_their_folder_alone(lead: str, root: Path) -> None:
    name = lead.format(root.parent)
    names = Names(["a.png"])
    with pytest.raises(LookupError, match=MISSING):
        names.find(name)
    told = {
        "images": [{"id": 1, "file_name": name, "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "fox"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}],
    }
    (root.parent / "coco.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="none of its 1 images can be found"):
        read_coco(root.parent / "coco.json", None, names)
    (root.parent / "captions.csv").write_text(f'path,caption\n"{name}",a fox\n')
    source = Source((), lambda: iter([Record("a.png", "train", root / "a.png", -1)]))
    with pytest.raises(ValueError, match="caption without an image"):
        read_captions(f"csv:{root.parent}/captions.csv", root, source, 0.5)


@pytest.mark.parametrize("content", ["elsewhere", "many"])
def test_xml_is_neither_led_elsewhere_nor_written_out(content: str, root: Path) -> None:
    (root / XML).mkdir()
    laughs = LAUGHS % "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 21))
    text = ENTITY % (root.parent / "secret.txt") if content == "elsewhere" else laughs
    (root / XML / "a.xml").write_text(text + BOX)
    with pytest.raises(ValueError, match="there is no thing in any of the 1 files"):
        read_voc(root, Names(["a.png"]), Masks())


def test_weights_are_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file by `torch.save` is an archive: whatever else is in it, nothing of it becomes a file."""
    place = tmp_path / "a/b/weights.pth"
    place.parent.mkdir(parents=True)
    monkeypatch.chdir(place.parent)
    torch.save({"a": torch.ones(2)}, place)
    with zipfile.ZipFile(place, "a") as archive:
        for name in ("../../escaped", str(tmp_path / "absolute"), "beside"):
            archive.writestr(name, SECRET)
    with pytest.raises(ValueError, match="damaged"):
        tensors(place)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [place]


def test_shards_are_those_of_the_folder_whatever_its_manifest_says(tmp_path: Path) -> None:
    """Names in it are only names, and numbers of shards that there are not are refused."""
    folder = tmp_path / "prepared"
    write_dataset(folder, np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4, np.int64), ["train"] * 4)
    table = pq.read_table(folder / "manifest.parquet")
    place = table.schema.get_field_index("path")
    pq.write_table(table.set_column(place, "path", [["../secret.png"] * 4]), folder / "manifest.parquet")
    assert Dataset(folder).read(np.arange(4))["images"].shape == (4, 1, 8, 8)
    shard = table.schema.get_field_index("shard")
    np.save(tmp_path / "images-00007.npy", np.ones((4, 1, 8, 8), np.uint8))
    for number in (-1, 7, 10**9):
        pq.write_table(table.set_column(shard, "shard", [[number] * 4]), folder / "manifest.parquet")
        with pytest.raises((ValueError, FileNotFoundError)):
            Dataset(folder).read(np.array([0]))
