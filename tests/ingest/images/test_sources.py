from __future__ import annotations

import gzip
import os
import sys
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from data_fixtures import encoded, fill, scene, write

from sslflow import paths
from sslflow.data import dataset
from sslflow.data.splits import POOL, TEST, TRAIN, held_out
from sslflow.ingest.images import downloads
from sslflow.ingest.images.sources import combine, open_source
from sslflow.ingest.records import Other, Record, Rejected, escape, unescape

PNG = encoded(scene(8, 8), "PNG")


def opened(name, path="nowhere", **settings):
    return open_source(name, path, **{"seed": 0, "test_fraction": 0.2, "label": "category"} | settings)


def records(source):
    return [item for item in source.records() if isinstance(item, Record)]


def pixels(record: Record) -> np.ndarray:
    assert isinstance(record.picture, np.ndarray)
    return record.picture


def counts(source):
    return Counter(record.split for record in records(source))


def test_splits_have_the_names_that_the_dataset_knows():
    assert (POOL, TRAIN, TEST) == (dataset.POOL, dataset.TRAIN, dataset.TEST)


@pytest.mark.parametrize(
    "name",
    [
        "plain.jpg",
        "two words.jpg",
        "a\nb\r\t.png",
        "back\\slash\\n.png",
        "صورة.png",
        "图片.webp",
        "\x07\x00",
        b"\xff\xfe.png",
    ],
)
def test_names_survive(name):
    name = os.fsdecode(name)
    shown = escape(name)
    assert shown.isprintable()
    assert shown.encode()
    assert unescape(shown) == name


def test_readable_names_stay_as_they_are():
    assert escape("صورة 图片 é.png") == "صورة 图片 é.png"


def test_a_fifth_of_each_class_is_held_out_and_more_images_change_little():
    names = [f"{number}.png" for number in range(150)]
    labels = [0] * 100 + [1] * 49 + [2]
    test = held_out(names, labels, 0.2, 0)
    assert Counter(labels[row] for row in test) == {0: 20, 1: 10}
    assert set(test) != set(held_out(names, labels, 0.2, 1))
    more = held_out([*names, "x.png"], [*labels, 0], 0.2, 0)
    assert len(set(more) ^ set(test)) <= 2
    assert len(held_out(names, labels, 0.0, 0)) == 0


def test_fashion():
    source = opened("samples:fashion")
    found = records(source)
    assert source.classes[0] == "T-shirt/top"
    assert len(source.classes) == 10
    for split, each in ((TRAIN, 1200), (TEST, 200)):
        assert Counter(record.label for record in found if record.split == split) == dict.fromkeys(range(10), each)
    assert [record.split for record in found] == [TEST] * 2000 + [TRAIN] * 12000
    assert pixels(found[0]).shape == (28, 28)


@pytest.mark.parametrize(("label", "classes"), [("category", 10), ("subcategory", 99)])
def test_emoji(label, classes):
    one, three = opened("samples:emoji/noto", label=label), opened("samples:emoji", label=label)
    assert len(one.classes) == classes
    assert counts(three) == {split: 3 * count for split, count in counts(one).items()}
    where = {}
    for record in records(three):
        assert record.name.endswith(f"/{record.group}")
        where.setdefault(record.group, set()).add((record.split, record.label))
    assert all(len(places) == 1 for places in where.values())  # one code point, one split, one label


def test_digits():
    clean, photo, both = (opened(f"samples:{name}") for name in ("digits/clean", "digits/photo", "digits"))
    assert clean.classes == photo.classes == both.classes == tuple("0123456789")
    assert counts(clean) == {TRAIN: 1438, TEST: 359}
    found = {
        source: {r.name.partition("/")[2]: (r.split, r.label) for r in records(source)} for source in (clean, photo)
    }
    assert found[clean] == found[photo]
    assert len(found[clean]) == 1797
    assert found[clean]["0003"][1] == 3
    assert {record.name.partition("/")[0] for record in records(both)} == {"clean", "photo"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sample:fashion", "did you mean 'samples'"),
        ("imagefolders", "did you mean 'imagefolder'"),
        ("samples:fashon", "did you mean 'fashion'"),
        ("samples:../../etc", "no sample"),
        ("samples:", "did you mean 'samples:<name>'"),
        ("torchvision:MNIS", "did you mean 'MNIST'"),
        ("folder", "nowhere: there is no such folder"),
        ("idx", "nowhere: there is no such folder"),
    ],
)
def test_what_is_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        opened(name)


def test_a_heap_of_images(tmp_path):
    names = ["a b.PNG", "deep/er/图.jpeg", "deep/x\ny.webp", "صورة.gif", os.fsdecode(b"\xff.bmp"), "z.tiff"]
    for name in names:
        write(tmp_path / name, PNG)
    for name in ("notes.txt", "deep/list.csv"):
        write(tmp_path / name, b"name, size")
    write(tmp_path / ".hidden.png", PNG)
    write(tmp_path / ".cache/x.png", PNG)
    items = list(opened("folder", tmp_path).records())
    found = [item for item in items if isinstance(item, Record)]
    assert sorted(record.name for record in found) == sorted(names)
    assert {record.split for record in found} == {POOL}
    assert {item.name for item in items if isinstance(item, Other)} == {"notes.txt", "deep/list.csv"}
    assert [record.name for record in found] == [record.name for record in records(opened("folder", tmp_path))]


def test_loops_of_links_end_and_links_are_followed(tmp_path):
    outside = write(tmp_path / "outside/far.png", PNG)
    root = tmp_path / "root"
    fill(root / "a", 2)
    (root / "a/loop").symlink_to(root)
    (root / "b").symlink_to(root / "a")
    (root / "far.png").symlink_to(outside)
    (root / "outside").symlink_to(outside.parent)
    (root / "gone.png").symlink_to(tmp_path / "gone.png")
    assert sorted(record.name for record in records(opened("folder", root))) == [
        "a/0000.jpg",
        "a/0001.jpg",
        "far.png",
        "gone.png",
        "outside/far.png",
    ]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    fill(tmp_path, 1)
    write(tmp_path / "locked/x.png", PNG)
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    items = list(opened("folder", tmp_path).records())
    assert [item for item in items if isinstance(item, Rejected)] == [
        Rejected("locked", "folder not readable: Permission denied")
    ]


def test_class_folders_without_a_split(tmp_path):
    fill(tmp_path / "cat", 20)
    fill(tmp_path / "dog/old", 10)
    fill(tmp_path, 1, first=99)
    write(tmp_path / "cat/notes.txt", b"x")
    (tmp_path / "empty").mkdir()
    source = opened("imagefolder", tmp_path)
    assert source.classes == ("cat", "dog")
    assert Counter((record.split, record.label) for record in records(source)) == {
        (TEST, 0): 4,
        (TEST, 1): 2,
        (TRAIN, 0): 16,
        (TRAIN, 1): 8,
    }
    assert len({record.name for record in records(source)}) == 30
    rest = [item for item in source.records() if not isinstance(item, Record)]
    assert rest == [Rejected("0099.jpg", "not in a class folder"), Other("cat/notes.txt")]
    assert records(source) != records(opened("imagefolder", tmp_path, seed=1))


@pytest.mark.parametrize(("second", "third"), [("test", None), ("val", None), ("test", "val"), ("Test", "Valid")])
def test_class_folders_with_a_split(tmp_path, second, third):
    fill(tmp_path / "train/cat", 3)
    fill(tmp_path / "train/dog", 3)
    fill(tmp_path / second / "cat", 2)
    fill(tmp_path / "extra", 2)
    if third:
        fill(tmp_path / third / "bird", 1)
    source = opened("imagefolder", tmp_path)
    assert source.classes == (("bird", "cat", "dog") if third else ("cat", "dog"))
    assert counts(source) == {TRAIN: 7 if third else 6, TEST: 2}
    assert all(isinstance(record.picture, Path) and record.picture.exists() for record in records(source))
    assert sum(isinstance(item, Other) for item in source.records()) == 2


def test_only_a_training_folder_is_split(tmp_path):
    fill(tmp_path / "train/cat", 10)
    assert counts(opened("imagefolder", tmp_path)) == {TRAIN: 8, TEST: 2}
    assert opened("imagefolder", tmp_path).classes == ("cat",)


def test_no_class_folders(tmp_path):
    fill(tmp_path, 2)
    with pytest.raises(ValueError, match=r"set data\.source to folder"):
        opened("imagefolder", tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="no image in any of them"):
        opened("imagefolder", tmp_path)


def idx_file(file, array, kind=8):
    array = np.asarray(array, np.uint8)
    content = bytes([0, 0, kind, array.ndim]) + np.asarray(array.shape, ">u4").tobytes() + array.tobytes()
    return write(file, gzip.compress(content) if file.suffix == ".gz" else content)


@pytest.mark.parametrize("ending", ["-idx{}-ubyte.gz", "-idx{}-ubyte", ".idx{}-ubyte"])
@pytest.mark.parametrize("second", ["t10k", "test"])
def test_idx(tmp_path, ending, second):
    images = np.arange(10 * 12).reshape(10, 3, 4)
    for part, own in (("train", images), (second, images[:4])):
        idx_file(tmp_path / f"{part}-images{ending.format(3)}", own)
        idx_file(tmp_path / f"{part}-labels{ending.format(1)}", np.arange(len(own)) % 2)
    source = opened("idx", tmp_path)
    assert source.classes == ("0", "1")
    assert counts(source) == {TRAIN: 10, TEST: 4}
    assert (pixels(records(source)[4]) == images[0]).all()
    write(tmp_path / "classes.txt", b"ja\nnein\n")
    assert opened("idx", tmp_path).classes == ("ja", "nein")


def test_idx_without_labels_and_without_a_test_part(tmp_path):
    idx_file(tmp_path / "train-images-idx3-ubyte", np.zeros((10, 3, 4)))
    assert counts(opened("idx", tmp_path)) == {POOL: 10}
    idx_file(tmp_path / "train-labels-idx1-ubyte", np.zeros(10))
    assert counts(opened("idx", tmp_path)) == {TRAIN: 8, TEST: 2}


def test_broken_idx(tmp_path):
    with pytest.raises(ValueError, match="no images in MNIST's format"):
        opened("idx", tmp_path)
    file = idx_file(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((10, 3, 4)))
    idx_file(tmp_path / "train-labels-idx1-ubyte", np.zeros(9))
    with pytest.raises(ValueError, match="10 images, but 9 labels"):
        opened("idx", tmp_path)
    idx_file(tmp_path / "train-labels-idx1-ubyte", np.full(10, 3))
    write(tmp_path / "classes.txt", b"one\n")
    with pytest.raises(ValueError, match="1 class names, but labels up to 3"):
        opened("idx", tmp_path)
    (tmp_path / "classes.txt").unlink()
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"damaged|ends within"):
        records(opened("idx", tmp_path))
    file.write_bytes(b"not gzip")
    with pytest.raises(ValueError, match="damaged"):
        opened("idx", tmp_path)
    file.unlink()
    short = idx_file(tmp_path / "train-images-idx3-ubyte", np.zeros((10, 3, 4)))
    short.write_bytes(short.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends within image 9 of 10"):
        records(opened("idx", tmp_path))
    idx_file(short, np.zeros((10, 3, 4)), kind=13)
    with pytest.raises(ValueError, match="not unsigned bytes"):
        opened("idx", tmp_path)
    idx_file(tmp_path / "train-images.idx3-ubyte", np.zeros((10, 3, 4)))
    with pytest.raises(ValueError, match="are both train images"):
        opened("idx", tmp_path)


def test_a_pool_and_another_source_to_probe_with(tmp_path):
    fill(tmp_path / "heap", 5)
    both = combine(opened("folder", tmp_path / "heap"), opened("samples:emoji/noto"))
    assert counts(both) == {POOL: 5, TRAIN: 1477, TEST: 371}
    assert all(record.label == -1 for record in records(both) if record.split == POOL)
    both = combine(opened("samples:emoji/openmoji"), opened("samples:emoji/noto"))
    assert counts(both) == {POOL: 1477, TRAIN: 1477, TEST: 371}  # never the pool's own test images
    groups = [{record.group for record in records(both) if record.split == split} for split in (POOL, TRAIN)]
    assert groups[0] == groups[1]
    with pytest.raises(ValueError, match="has no labels"):
        combine(opened("samples:fashion"), opened("folder", tmp_path / "heap"))


def test_torchvision(tmp_path, monkeypatch):
    raw = tmp_path / "FashionMNIST/raw"
    for file in (paths.SAMPLES / "fashion").glob("*.gz"):
        write(raw / file.stem, gzip.decompress(file.read_bytes()))
    monkeypatch.setattr(downloads, "FOLDER", tmp_path)
    found = opened("torchvision:FashionMNIST")
    assert counts(found) == {TRAIN: 12000, TEST: 2000}
    assert found.classes[9] == "Ankle boot"
    ours = records(opened("samples:fashion"))
    assert all(
        (pixels(one) == pixels(other)).all() and (one.split, one.label) == (other.split, other.label)
        for one, other in zip(records(found), ours, strict=True)
    )


def test_torchvision_offline(tmp_path, monkeypatch):
    def unreachable(*_):
        raise URLError("Name or service not known")

    monkeypatch.setattr(downloads, "FOLDER", tmp_path)
    monkeypatch.setitem(downloads._LOADERS, "CIFAR10", unreachable)
    with pytest.raises(ValueError, match=r"CIFAR10 could not be downloaded to .*Name or service.*use another source$"):
        opened("torchvision:CIFAR10")


def test_naming_a_source_loads_no_torch():
    code = "import sslflow.stages.prepare, sys; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
