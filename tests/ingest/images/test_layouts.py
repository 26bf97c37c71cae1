"""Folders as strangers have them: what is told of them, what stops, whose labels are believed."""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fixtures import encoded, fill, in_process, scene, write

from sslflow.adaptation.task import open_task, target_answers
from sslflow.data.dataset import Dataset
from sslflow.data.splits import held_out
from sslflow.ingest.domains import prepare_domains
from sslflow.ingest.images import prepare as module
from sslflow.ingest.images.prepare import prepare

SMALL: dict[str, Any] = {"image_size": 8, "channels": 3, "workers": 1}
PNG = encoded(scene(8, 8), "PNG")


@pytest.fixture(autouse=True)
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "examine_all", in_process)


def picture(seed: int, size: int = 8) -> bytes:
    return encoded(scene(size, size, seed=seed), "PNG")


def folders(root: Path, *names: str, each: int = 3, first: int = 0) -> Path:
    """Folders of different images each."""
    for number, name in enumerate(names):
        for image in range(each):
            write(root / name / f"{image}.png", picture(first + 100 * number + image))
    return root


def prepared(root: Path, source: str = "imagefolder", **settings: Any) -> tuple[Dataset, list[str], dict[str, int]]:
    lines: list[str] = []
    out = root.parent / "out"
    counts = prepare(out, lines.append, source=source, path=str(root), **SMALL | settings)
    return Dataset(out), lines, counts


def warnings(lines: list[str]) -> str:
    return "\n".join(line for line in lines if line.startswith("warning: "))


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


# A layout is not guessed without a word


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["flowers/daisy", "flowers/rose"],
            r"one class only, 'flowers', .*daisy, rose.*raw/flowers .*set data.path to it",
        ),
        (["a/b/c/daisy", "a/b/c/rose"], r"raw/a/b/c holds the class folders, set data.path to it"),
        (["set/train/a", "set/train/b", "set/test/a", "set/test/b"], r"'set', .*raw/set holds the class folders"),
        (["images/train", "images/val"], r"'images', .*set data.path"),
        (["cat"], r"one class only, 'cat', in .*; for images without labels set data.source to folder"),
        (["train/cat", "test/cat"], r"one class only, 'cat'"),
        (
            ["train/cat", "train/dog", "unlabeled"],
            r"found train, .*set data.path to .*raw/train, or name the parts train",
        ),
        (["Train_Set", "Test_Set"], r"expected class folders, found Test_Set, Train_Set"),
        (["trainA", "testA", "trainB", "testB"], r"found testA, testB, trainA, trainB"),
        (["seg_train/seg_train/a", "seg_train/seg_train/b", "seg_pred"], r"found seg_pred, seg_train"),
        (["x_train", "x_val", "unlabelled"], r"found unlabelled, x_train, x_val"),
        (["train2017", "val2017"], r"found train2017, val2017"),
        (["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"], r"found fold1, fold2, .*such as .*raw/fold1"),
        (["flowers-train", "flowers-test"], r"found flowers-test, flowers-train, .*or name the parts train"),
        (["DIV2K_train_HR", "DIV2K_valid_HR"], r"found DIV2K_train_HR, DIV2K_valid_HR"),
        (["train/images", "valid/images"], r"one class only, 'images'"),
        (["JPEGImages", "SegmentationClass"], r"found JPEGImages, SegmentationClass"),
        (["images", "masks"], r"found images, masks, like the parts of a set"),
        (["JPEGImages", "Annotations"], r"found Annotations, JPEGImages"),
        (["images/train", "images/val", "labels/train", "labels/val"], r"found images, labels, .*such as .*raw/images"),
        (["train/n1/images", "train/n2/images", "val/images"], r"raw/val: expected class folders, found images"),
        (["cat", "dog", "test/cat", "test/dog"], r"found test, .*name the parts train and test"),
        (["train/a", "train/b", "test"], r"expected class folders in test/, found none; move it away"),
        (["train/a", "train/b", "val/a", "val/b", "test"], r"expected class folders in test/, found none"),
        (["train/train/a", "train/train/b", "test/test/a", "test/test/b"], r"found test, .*such as .*raw/test/test"),
        (["train", "test/a", "test/b"], r"found none in train/ and a, b in test/"),
        (["train/a", "train/b", "test/c", "test/d"], r"found a, b in train/ and c, d in test/"),
    ],
)
def test_what_can_hardly_be_meant_stops(tmp_path: Path, names: list[str], message: str) -> None:
    root = folders(tmp_path / "raw", *names)
    with pytest.raises(ValueError, match=message):
        prepared(root)
    assert not (tmp_path / "out").exists()
    assert prepared(root, "folder")[2]["pool"] == 3 * len(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["daisy", "rose", "unlabeled"], r"unlabeled is taken as a class, like daisy, rose; .*set data.path"),
        (["bus", "train", "tram"], r"train is taken as a class, like bus, tram"),
        (["cat", "dog", "labels", "Images"], r"Images, labels are taken as classes, like cat, dog"),
        (["cat/images", "cat/masks", "dog/images", "dog/masks"], r"same folders in them \(images, masks\)"),
        (["cat", "cat/masks", "dog", "dog/masks"], r"same folders in them \(masks\)"),
        (["real/cat", "real/dog", "sketch/cat", "sketch/dog"], r"same folders in them \(cat, dog\).* set data.path"),
        (["p1/0", "p1/1", "p2/0", "p2/1", "p3/1"], r"same folders in them \(0, 1\)"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], r"test, train in .* not taken as a split; .*train/cat"),
        (["animals/cat", "animals/dog", "vehicles/bus"], r"in 2 of 2 class folders .*\(cat, dog, bus\).*set data.path"),
        (["cat", "dog", "flowers/daisy", "flowers/rose"], r"in 1 of 3 class folders .*\(daisy, rose\)"),
        (["north/daisy", "south/rose"], r"in 2 of 2 class folders .*\(daisy, rose\)"),
        (["train/a", "train/b", "test/a", "test/b", "extra"], r"beside test/, train/ .* not used: extra/ \(3 images\)"),
    ],
)
def test_what_may_be_meant_is_warned_of(tmp_path: Path, names: list[str], message: str) -> None:
    _, lines, _ = prepared(folders(tmp_path / "raw", *names))
    assert re.search(message, warnings(lines))


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "dog"],
        ["cat", "dog/old"],
        ["n1/images", "n2/images"],
        ["train/cat", "train/dog", "val/cat", "val/dog"],
        ["Training /cat", "Training /dog", "TEST/cat", "TEST/dog"],
        ["train/cat", "train/dog", "dev/cat", "dev/dog"],
        ["with_mask", "without_mask"],
        ["test tube", "bullet train", "valid ticket"],
        ["positive_test", "negative_test"],
        [*"0123456789"],
    ],
)
def test_a_folder_for_each_class_is_told_with_its_counts_and_nothing_else(tmp_path: Path, names: list[str]) -> None:
    dataset, lines, _ = prepared(folders(tmp_path / "raw", *names))
    assert warnings(lines) == ""
    counts = Counter(dataset.classes[label] for label in dataset.labels)
    assert f"{len(counts)} classes: " + ", ".join(f"{name} {counts[name]}" for name in dataset.classes) in lines[-1]
    assert lines[0].startswith(f"{tmp_path / 'raw'}: images in {len(counts)} classes: ")


def test_which_folder_is_tested_on_is_told(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "train/a", "train/b", "val/a", "val/b", "test/a", "test/b")
    assert any("trained on is train/, val/, tested on is test/" in line for line in prepared(root)[1])


def test_two_folders_of_one_split_are_both_read(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "train/a", "train/b", "Train/a", "test/a", "test/b")
    assert prepared(root)[2]["train"] == 9


def test_images_beside_class_folders_and_empty_classes_are_named(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "cat", "dog")
    for name in ("a.png", "b.png"):
        write(root / name, picture(7000))
    write(root / "fox/notes.txt", b"none")
    _, lines, counts = prepared(root)
    assert "2 images lie beside the class folders and are put aside: a.png, b.png" in warnings(lines)
    assert "no images in the class folders fox" in warnings(lines)
    assert (counts["quarantined"], counts["other_files"]) == (2, 1)


def test_an_image_a_class(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", *(f"id{number}" for number in range(5)), each=1)
    _, lines, counts = prepared(root)
    assert "5 of 5 classes have one of the images only; if each has a folder of its own" in warnings(lines)
    assert "nothing to test on of any class" in warnings(lines)
    assert counts["test"] == 0


def test_a_probe_set_names_its_own_setting(tmp_path: Path) -> None:
    folders(tmp_path / "probe", "flowers/daisy", "flowers/rose")
    heap = folders(tmp_path / "raw", "heap")
    with pytest.raises(ValueError, match=r"set data\.probe_path to it$"):
        prepared(heap, "folder", probe_source="imagefolder", probe_path=str(tmp_path / "probe"))


def test_masks_in_a_heap_are_told(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "images", "masks", "deep/thumbs")
    _, lines, counts = prepared(root, "folder")
    assert "thumbs (3), masks (3) are learnt from, too" in warnings(lines)
    assert counts["pool"] == 9


def test_a_class_that_links_back_to_the_root_has_only_its_own_images(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "a", "b")
    (root / "a/up").symlink_to(root)
    (root / "a/other").symlink_to(root / "b")
    dataset, _, counts = prepared(root)
    assert Counter(dataset.labels.tolist()) == {0: 3, 1: 3}
    assert counts["duplicates"] == 0


def test_names_that_are_not_utf_8_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(b"caf\xe9")
    folders(tmp_path / "raw", f"{odd}/{odd}", f"{odd}/b")
    with pytest.raises(ValueError, match=r"one class only, 'caf\\xe9'") as error:
        prepared(tmp_path / "raw")
    str(error.value).encode()
    for name in ("train", "test"):
        folders(tmp_path / "more", f"{name}/a", f"{name}/{odd}", odd, first=1000 * len(name))
    for line in prepared(tmp_path / "more")[1]:
        line.encode()


# One spelling a name


@pytest.mark.parametrize("name", ["café", "Ångström", "한국", "がく", "ḍ̇"])
@pytest.mark.parametrize("places", [("", ""), ("train/", "test/"), ("train/", "val/")])
def test_one_name_is_one_class(tmp_path: Path, name: str, places: tuple[str, str]) -> None:
    root = tmp_path / "raw"
    composed = unicodedata.normalize("NFC", name)
    folders(root, f"{places[0]}{composed}", f"{places[1]}{nfd(name)}", f"{places[0]}tea", f"{places[1]}tea ".strip())
    dataset, lines, counts = prepared(root)
    assert dataset.classes == sorted([composed, "tea"])
    assert warnings(lines) == ""
    assert (counts["train"] + counts["test"], counts["classes"]) == (9 if places[0] == "" else 12, 2)
    if not places[0]:
        held = Counter(dataset.classes[label] for label in dataset.labels[dataset.rows("test")])
        assert held == {composed: 1, "tea": 1}  # a fifth of six, together


def test_a_mac_holds_out_the_same_images() -> None:
    names = [f"é{number}.png" for number in range(50)]
    rows = (held_out([spell(name) for name in names], [0] * 50, 0.2, 0).tolist() for spell in (str, nfd))
    assert next(rows) == next(rows)


@pytest.mark.parametrize(
    "pair",
    [
        *(("cat", "Cat"), ("cat", "cat "), ("red_fox", "red fox"), ("red-fox", "redfox"), ("cat", "cat\u200b")),
        *(("cat", "ｃａｔ"), ("cafe", "café"), ("class 1", "class_01"), ("fish", "ﬁsh"), ("cat", "cat\u00a0")),
        *(("don't", "don’t"), ("café", os.fsdecode(b"caf\xe9"))),
    ],
)
def test_names_that_differ_by_hardly_anything_are_named(tmp_path: Path, pair: tuple[str, str]) -> None:
    dataset, lines, _ = prepared(folders(tmp_path / "raw", *pair, "other"))
    assert len(dataset.classes) == 3
    assert "whose names differ by hardly anything" in warnings(lines)
    first, second = (name for name in dataset.classes if name != "other")
    assert f"'{first}' and '{second}'" in warnings(lines)


@pytest.mark.parametrize("name", ["Cat", "cat\u200b", "c-a-t", "ＣＡＴ"])
def test_domains_whose_names_differ_by_hardly_anything(tmp_path: Path, name: str) -> None:
    folders(tmp_path / "source", "cat", "dog")
    folders(tmp_path / "target", name, "dog", first=1000)
    _, lines = domains(tmp_path)
    assert "classes of source and target whose names differ by hardly anything" in warnings(lines)


def domains(tmp_path: Path, target: str = "imagefolder") -> tuple[Path, list[str]]:
    lines: list[str] = []
    places: dict[str, Any] = {f"{domain}_path": str(tmp_path / domain) for domain in ("source", "target")}
    prepare_domains(tmp_path / "out", lines.append, source="imagefolder", target=target, **places, **SMALL)
    return tmp_path / "out", lines


@pytest.mark.parametrize("name", ["café", "한국", "Å"])
def test_domains_share_a_name_however_it_is_written(tmp_path: Path, name: str) -> None:
    folders(tmp_path / "source", name, "dog", "fox")
    folders(tmp_path / "target", nfd(name), "dog", "owl", first=1000)
    out, lines = domains(tmp_path)
    name = unicodedata.normalize("NFC", name)
    shared = ", ".join(sorted([name, "dog"]))
    assert f"classes: {shared} (2) in both; fox (1) in the source alone; owl (1) in the target alone" in lines
    assert warnings(lines) == ""
    assert (target_answers(out).labels >= 0).sum() == 6
    file = tmp_path / "split.json"
    own = {"source": [f"{one}.png" for one in range(3)], "target": [f"{one}.png" for one in range(3)]}
    lists = {domain: [nfd(name), "dog"] for domain in own}
    file.write_text(json.dumps(own | {"settings": {"cda": lists}}))
    assert open_task(out, "cda", file).classes == tuple(sorted([name, "dog"]))


def test_items_of_a_split_file_are_found_however_they_are_written(tmp_path: Path) -> None:
    for domain in ("source", "target"):
        for number, name in enumerate(("a", "b")):
            write(tmp_path / domain / name / "été.png", picture(number + 50 * (domain == "target")))
    out, _ = domains(tmp_path)
    file = tmp_path / "split.json"
    items = {domain: [nfd("été.png")] for domain in ("source", "target")}
    file.write_text(json.dumps(items | {"settings": {"cda": {one: ["a", "b"] for one in items}}}))
    assert len(open_task(out, "cda", file).source_rows) == 2


def test_domains_with_nothing_in_common_and_of_another_layout(tmp_path: Path) -> None:
    folders(tmp_path / "source", "cat", "dog")
    folders(tmp_path / "target", "flowers/daisy", "flowers/rose", first=1000)
    _, lines = domains(tmp_path)
    assert "no class of the target has the name of one of the source's" in warnings(lines)
    assert re.search(r"target: .*one class only, 'flowers'.*set target_path to it", warnings(lines))
    folders(tmp_path / "more/source", "flowers/daisy", "flowers/rose")
    folders(tmp_path / "more/target", "daisy", "rose")
    with pytest.raises(ValueError, match=r"one class, 'flowers' in imagefolder .*set source_path to it$"):
        domains(tmp_path / "more")


def test_a_source_class_must_not_have_the_name_of_none(tmp_path: Path) -> None:
    folders(tmp_path / "source", "cat", "unknown")
    folders(tmp_path / "target", "cat", "unknown", first=1000)
    with pytest.raises(ValueError, match=r"the source \(.*source\) has a class 'unknown', .*give it another name"):
        domains(tmp_path)


def test_images_in_both_domains_with_another_label(tmp_path: Path) -> None:
    folders(tmp_path / "source", "cat", "dog")
    folders(tmp_path / "target", "dog", "cat")
    assert "6 images are in both domains, with different labels: dog and cat, cat and dog" in warnings(
        domains(tmp_path)[1]
    )


def test_classes_without_examples_by_the_splits(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "train/a", "train/b", "train/c", "test/a", "test/d")
    _, lines, _ = prepared(root)
    assert "nothing to train on of 1 of 4 classes: d" in warnings(lines)
    assert "nothing to test on of 2 of 4 classes: b, c" in warnings(lines)


def test_classes_without_examples_by_quarantine_and_duplicates(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "a", "b", "d")
    write(root / "broken/0.png", b"not one")
    for number in range(3):
        write(root / f"d/{number}.png", picture(4000))
    _, lines, _ = prepared(root)
    assert "no example that can be used of the classes broken" in warnings(lines)
    assert re.search(r"nothing to (train|test) on of 1 of 3 classes: d", warnings(lines))


def test_one_class_is_left(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "a")
    write(root / "b/0.png", b"not one")
    with pytest.raises(ValueError, match=r"two classes or more to train on, found a of 2; .*set data.source to folder"):
        prepared(root)


def idx_folder(root: Path, images: np.ndarray, labels: list[int], classes: bytes = b"") -> Path:
    for name, array in (("images-idx3", images), ("labels-idx1", np.array(labels, np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
        write(root / f"train-{name}-ubyte", header + array.astype(np.uint8).tobytes())
    if classes:
        write(root / "classes.txt", classes)
    return root


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("café\ncafé\n", "more than once: café"),
        ("tea\r\ntea\r\n", "more than once: tea"),
        (f"café\n{nfd('café')}\n", "more than once: café"),
    ],
)
def test_names_in_a_list_of_classes_are_different(tmp_path: Path, classes: str, message: str) -> None:
    root = idx_folder(tmp_path / "raw", np.arange(6 * 16).reshape(6, 4, 4), [0, 1] * 3, classes.encode())
    with pytest.raises(ValueError, match=message):
        prepared(root, "idx", channels=1)


def test_a_list_of_classes_from_windows_and_a_mac(tmp_path: Path) -> None:
    images = np.arange(6 * 16).reshape(6, 4, 4)
    content = b"\xef\xbb\xbf" + nfd("café\r\ntea\r\n").encode()
    assert prepared(idx_folder(tmp_path / "raw", images, [0, 1] * 3, content), "idx", channels=1)[0].classes == [
        "café",
        "tea",
    ]
    write(tmp_path / "raw/classes.txt", "café\ntea".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes\.txt: expected class names in UTF-8, found byte 3 of 0xe9"):
        prepared(tmp_path / "raw", "idx", channels=1)


# What systems make


def test_what_a_mac_puts_beside_files_in_mnist_s_format(tmp_path: Path) -> None:
    root = idx_folder(tmp_path / "raw", np.arange(6 * 16).reshape(6, 4, 4), [0, 1] * 3)
    for file in list(root.iterdir()):
        file.rename(root / f"emnist-letters-{file.name}")
        write(root / f"._emnist-letters-{file.name}", b"Mac OS X")
    assert prepared(root, "idx", channels=1)[2]["images"] == 6


MADE = [
    *("@eaDir", "@EADIR", ".thumbnails", "__MACOSX", ".AppleDouble", "$RECYCLE.BIN", "System Volume Information"),
    *(".Trash-1000", "lost+found", ".ipynb_checkpoints", ".git", ".dvc/cache", ".picasaoriginals", "@Recycle"),
    *("#recycle", ".@__thumb", ".comments", "#snapshot", "@Recently-Snapshot", "Network Trash Folder", ":2eDS"),
    *("found.000", "RECYCLER", "@tmp", "~snapshot", "Catalog Previews.lrdata", "THMBNL"),
]


@pytest.mark.parametrize("name", MADE)
def test_folders_that_systems_make_are_passed_over_and_said(tmp_path: Path, name: str) -> None:
    root = folders(tmp_path / "raw", "cat", "dog")
    for place in ("", "cat/", "cat/deep/"):
        folders(root, f"{place}{name}/a.png", each=2, first=5000)
    for source in ("folder", "imagefolder"):
        _, lines, counts = prepared(root, source)
        assert (counts["images"], counts["quarantined"], counts["other_files"]) == (6, 0, 0), source
        assert counts["passed_over"] == 6
        assert f"passed over, since hidden or made by a system: 6 files: {name.partition('/')[0]} 6" in lines
        assert warnings(lines) == ""


@pytest.mark.parametrize(
    "name", ["._a.png", ":2e_a.png", "Thumbs.db", "SYNOPHOTO_THUMB_M.jpg", "desktop.ini", "Icon\r"]
)
def test_files_that_systems_make_are_passed_over_and_said(tmp_path: Path, name: str) -> None:
    root = folders(tmp_path / "raw", "cat", "dog")
    for place in ("", "cat", "cat/deep"):
        write(root / place / name, PNG)
    for source in ("folder", "imagefolder"):
        _, lines, counts = prepared(root, source)
        assert (counts["images"], counts["quarantined"], counts["other_files"]) == (6, 0, 0)
        assert counts["passed_over"] == 3
        assert any("passed over, since hidden or made by a system: 3 files: " in line for line in lines)


def test_what_photo_libraries_make_is_passed_over(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "My.photoslibrary/originals", "My.photoslibrary/resources", "resources")
    _, _, counts = prepared(root, "folder")
    assert (counts["images"], counts["passed_over"]) == (6, 3)


def test_a_folder_with_nothing_else(tmp_path: Path) -> None:
    folders(tmp_path / "raw", "@eaDir", ".hidden")
    with pytest.raises(ValueError, match=r"no images here .*passed over: 6 files: .hidden 3, @eaDir 3"):
        prepared(tmp_path / "raw", "folder")


@pytest.mark.parametrize("name", ["recycled", "trash", "thumbnail", "snapshot", "lost", "tmp", "private", "resources"])
def test_names_that_only_sound_like_it_are_classes(tmp_path: Path, name: str) -> None:
    assert name in prepared(folders(tmp_path / "raw", name, "cat"))[0].classes


# Contradicting labels


def labels_of(dataset: Dataset) -> dict[str, str]:
    pairs = zip(dataset.column("path"), dataset.labels, strict=True)
    return {path: dataset.classes[label] if label >= 0 else "" for path, label in pairs}


def conflict(tmp_path: Path, *names: str, **settings: Any) -> tuple[Dataset, list[str], dict[str, int]]:
    """Two classes with a split, and one image under the names given."""
    root = folders(tmp_path / "raw", "train/a", "train/b", "test/a", "test/b")
    for name in names:
        write(root / name, picture(9999))
    return prepared(root, **settings)


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
@pytest.mark.parametrize(
    "names",
    [
        ["train/a/x.png", "train/b/x.png"],
        ["test/a/x.png", "test/b/x.png"],
        ["train/a/x.png", "test/b/x.png"],
        ["train/a/x.png", "train/a/y.png", "train/b/x.png"],
        ["train/a/x.png", "train/b/x.png", "train/b/y.png"],
        ["train/a/x.png", "test/a/x.png", "train/b/x.png"],
    ],
)
def test_an_image_in_two_classes_has_no_label(tmp_path: Path, names: list[str], duplicates: str) -> None:
    dataset, lines, counts = conflict(tmp_path, *names, duplicates=duplicates)
    found = labels_of(dataset)
    kept = {name: label for name, label in found.items() if name in names}
    assert set(kept.values()) == {""}
    assert len(kept) == (len(names) if duplicates == "keep" else 1)
    assert sum(label != "" for label in found.values()) == 12
    assert counts["label_conflicts"] >= 1
    assert "equal images with different labels: " in warnings(lines)
    assert any(name in warnings(lines) for name in names)
    with (dataset.folder / "duplicates.csv").open(newline="") as handle:
        assert any(row["label"] != row["first_label"] for row in csv.DictReader(handle))
    trained = [name for name in names if name.startswith("train") and name in found]
    assert set(trained) <= set(dataset.column("path", dataset.pretraining_rows))


def test_copies_of_one_class_keep_their_label(tmp_path: Path) -> None:
    dataset, lines, counts = conflict(tmp_path, "train/a/x.png", "train/a/y.png")
    assert labels_of(dataset)["train/a/x.png"] == "a"
    assert (counts["label_conflicts"], warnings(lines)) == (0, "")


def test_contradictions_in_a_made_split_in_idx_and_in_a_target(tmp_path: Path) -> None:
    root = folders(tmp_path / "raw", "a", "b")
    for name in ("a", "b"):
        write(root / name / "x.png", picture(9999))
    assert set(labels_of(prepared(root)[0]).values()) == {"a", "b", ""}
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8))
    images[7] = images[0]
    dataset, lines, _ = prepared(idx_folder(tmp_path / "idx", images, [0, 1] * 4), "idx", channels=1)
    assert "equal images with different labels" in warnings(lines)
    assert (dataset.labels == -1).sum() == 1
    folders(tmp_path / "source", "a", "b", first=3000)
    (tmp_path / "target").symlink_to(root)
    out, lines = domains(tmp_path)
    assert "warning: target: equal images with different labels" in warnings(lines)
    answers = target_answers(out)
    assert (len(answers.names), answers.names.count("")) == (8, 2)


def test_a_manifest_of_several_groups_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslflow.ingest.shards._ROW_GROUP", 4)
    dataset, _, _ = conflict(tmp_path, "train/a/x.png", "train/b/x.png")
    assert dataset.column("row").tolist() == list(range(13))
    assert (dataset.labels == -1).sum() == 1


@pytest.mark.parametrize("equal", [9, 5])
def test_that_most_images_are_dropped_is_warned_of(tmp_path: Path, equal: int) -> None:
    for number in range(10):
        write(tmp_path / "raw" / f"{number}.png", picture(0 if number < equal else number))
    _, lines, _ = prepared(tmp_path / "raw", "folder")
    said = "8 of 10 images are dropped, since their files hold the same pictures as others (8 are copies of a file)"
    assert (said in warnings(lines)) == (equal == 9)
    assert bool(warnings(lines)) == (equal == 9)
    assert warnings(prepared(tmp_path / "raw", "folder", duplicates="keep")[1]) == ""


def test_the_warnings_stay_with_the_data(tmp_path: Path) -> None:
    dataset, lines, _ = conflict(tmp_path, "train/a/x.png", "train/b/x.png")
    facts = json.loads((dataset.folder / "dataset.json").read_text())
    assert facts["warnings"] == [line.removeprefix("warning: ") for line in warnings(lines).splitlines()] != []


def test_nothing_of_it_costs_a_heap_its_images(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 3)
    assert prepared(tmp_path / "raw", "folder")[1] == []
