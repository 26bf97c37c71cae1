"""Masks and boxes from files: what they say arrives, whatever the format, and what is wrong with them is said."""

from __future__ import annotations

import copy
import csv
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import annotation_fixtures as made
import numpy as np
import pyarrow.parquet as pq
import pytest
from annotation_fixtures import NAMES, SIZE, entry, saved
from data_fixtures import encoded, in_process, write
from PIL import Image

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import held_out
from sslflow.ingest.images import prepare as module
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.images.sources import _scenes
from sslflow.ingest.records import Masks
from sslflow.runtime.files import read_json
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def without_processes(monkeypatch):
    monkeypatch.setattr(module, "examine_all", in_process)


class Prepared:
    """What `prepare` made and said."""

    def __init__(self, tmp_path: Path, raw: Path, annotations: str, **settings: Any) -> None:
        self.lines: list[str] = []
        settings = {"source": "folder", "image_size": 24, "channels": 3, "fit": "pad"} | settings
        out = tmp_path / "out"
        self.counts = prepare(out, self.lines.append, path=str(raw), annotations=annotations, **settings)
        self.dataset = Dataset(out)
        assert self.dataset.truth is not None
        self.truth = self.dataset.truth
        self.warnings = read_json(out / "dataset.json")["warnings"]
        with (out / "annotations.csv").open(newline="", encoding="utf-8") as handle:
            self.flaws = [tuple(row) for row in list(csv.reader(handle))[1:]]

    def names(self, split: str, kind: str | None = None) -> list[str]:
        """Of the images of a split, or those of which masks or boxes are known."""
        rows = self.dataset.rows(split) if kind is None else self.dataset.annotated_rows(split, kind)
        return sorted(Path(name).stem for name in self.dataset.column("path", rows))

    def masks(self) -> dict[str, np.ndarray]:
        rows = self.truth.rows("mask")
        return dict(zip(self._stems(rows), self.truth.masks(rows).numpy(), strict=True))

    def boxes(self) -> dict[str, list[tuple[str, tuple[float, ...], bool]]]:
        """Class, edges and whether it is ignored, of each thing."""
        rows = self.truth.rows("boxes")
        found = {}
        for name, own in zip(self._stems(rows), self.truth.things(rows), strict=True):
            kinds = [self.truth.thing_classes[label] for label in own.labels]
            found[name] = list(zip(kinds, map(tuple, own.boxes.tolist()), own.ignored.tolist(), strict=True))
        return found

    def _stems(self, rows: np.ndarray) -> list[str]:
        return [Path(name).stem for name in self.dataset.column("path", rows)]


def padded(mask: np.ndarray) -> np.ndarray:
    """Of 24 by 20 pixels, in a square of 24."""
    return np.pad(mask, ((2, 2), (0, 0)), constant_values=255)


def expected_boxes(numbers: range) -> dict[str, list[tuple[str, tuple[float, ...], bool]]]:
    return {
        f"{number:02}": [(name, (a, b + 2.0, c, d + 2.0), False) for name, (a, b, c, d) in made.things(number)]
        for number in numbers
    }


@pytest.mark.parametrize("kind", ["coco", "voc", "masks"])
def test_what_the_files_say_arrives(tmp_path, kind):
    """Ten annotated images and three others, one of which is not even named."""
    raw = made.images(tmp_path / "raw", range(13))
    settings: dict[str, Any] = {}
    if kind == "coco":
        where = saved(tmp_path / "a.json", made.coco_of(range(10)))
    elif kind == "voc":
        where = made.voc(tmp_path / "voc", range(10))
    else:
        where = made.masks(tmp_path / "masks", range(10))
        settings["masks"] = Masks(("background", *NAMES))
    found = Prepared(tmp_path, raw, f"{kind}:{where}", **settings)
    masks = found.masks()
    assert found.truth.pixel_classes == ["background", *NAMES]
    assert sorted(masks) == [f"{number:02}" for number in range(10)]
    for number in range(10):
        assert masks[f"{number:02}"].tolist() == padded(made.mask_of(number)).tolist()
    if kind == "masks":
        assert found.truth.thing_classes == []
        assert not len(found.truth.rows("boxes"))
        with pytest.raises(KeyError, match="no things of row"):
            found.truth.things(found.truth.rows("mask")[:1])
    else:
        assert found.truth.thing_classes == list(NAMES)
        assert found.boxes() == expected_boxes(range(10))
        assert found.counts["things"] == 16
        assert found.counts["without_things"] == 2
    assert found.flaws == []
    names = [f"{number:02}.png" for number in range(10)]
    tested = [names[row].removesuffix(".png") for row in held_out(names, [0] * 10, 0.2, 0)]
    assert found.names("test") == found.names("test", "mask") == sorted(tested)
    assert found.names("train", "mask") == sorted({name.removesuffix(".png") for name in names} - {*tested})
    assert found.names("pool") == sorted({f"{number:02}" for number in range(13)} - {*tested})
    assert set(found.dataset.labels) == {-1}


def test_where_all_are_annotated_there_is_no_pool(tmp_path):
    raw = made.images(tmp_path / "raw", range(6))
    found = Prepared(tmp_path, raw, f"coco:{saved(tmp_path / 'a.json', made.coco_of(range(6)))}")
    assert (found.counts["pool"], found.counts["train"], found.counts["test"]) == (0, 5, 1)
    assert found.names("train") == [
        Path(one).stem for one in found.dataset.column("path", found.dataset.pretraining_rows)
    ]


def test_an_annotated_image_that_can_not_be_read_is_put_aside_once(tmp_path):
    """Though it would be both trained on and in the pool."""
    raw = made.images(tmp_path / "raw", range(8))
    write(raw / "00.png", b"hello")
    where = f"coco:{saved(tmp_path / 'a.json', made.coco_of(range(6)))}"
    found = Prepared(tmp_path, raw, where, test_fraction=0.0)
    assert found.counts["quarantined"] == 1
    assert "00" not in found.boxes()
    assert found.counts["with_boxes"] == 5


@pytest.mark.parametrize("folder", ["test", "Val"])
def test_folders_say_what_is_tested_on(tmp_path, folder):
    made.images(tmp_path / "raw/train", range(4))
    made.images(tmp_path / f"raw/{folder}", range(4, 7))
    made.images(tmp_path / "raw/more", [9])
    made.masks(tmp_path / "masks/train", range(4))
    made.masks(tmp_path / f"masks/{folder}", range(4, 7))
    found = Prepared(tmp_path, tmp_path / "raw", f"masks:{tmp_path / 'masks'}")
    assert found.names("test", "mask") == ["04", "05", "06"]
    assert found.names("pool") == ["00", "01", "02", "03", "09"]
    assert found.truth.pixel_classes == ["0", "1", "2", "3"]


def test_a_second_file_says_what_is_tested_on(tmp_path):
    """Its ids are others, an image is in both, and each has a category of its own."""
    raw = made.images(tmp_path / "raw", range(8))
    second = made.coco_of(range(4, 8))
    for one in second["categories"]:
        one["id"] += 50
    for one in second["annotations"]:
        one["category_id"] += 50
    second["categories"].append({"id": 1, "name": "yak"})
    settings = {"annotations_test": f"coco:{saved(tmp_path / 'b.json', second)}"}
    found = Prepared(tmp_path, raw, f"coco:{saved(tmp_path / 'a.json', made.coco_of(range(5)))}", **settings)
    assert found.names("train", "boxes") == ["00", "01", "02", "03"]
    assert found.names("test", "boxes") == ["04", "05", "06", "07"]
    assert found.boxes() == expected_boxes(range(8))
    assert found.truth.thing_classes == [*NAMES, "yak"]
    assert any("1 images stand in" in line and "to test on" in line for line in found.warnings)
    assert any("has no category yak" in line for line in found.warnings)
    assert "boxes: no example that can be used of the classes yak" in found.warnings


def test_lists_of_voc_say_what_is_tested_on(tmp_path):
    root = made.voc(tmp_path / "VOC2012", range(8))
    write(root / "ImageSets/Main/train.txt", b"00\n01\n02\n\n")
    write(root / "ImageSets/Main/val.txt", b"03\n77\n")
    write(root / "ImageSets/Main/cat_train.txt", b"05 1\n")
    write(root / "ImageSets/Segmentation/train.txt", b"04\n")
    write(root / "ImageSets/Segmentation/val.txt", b"03\n02\n")
    write(root / "SegmentationObject/00.png", encoded(Image.new("L", SIZE), "PNG"))
    found = Prepared(tmp_path, root, f"voc:{root}")
    assert found.names("train", "mask") == ["00", "01", "04"]
    assert found.names("test", "boxes") == ["02", "03"]
    assert found.names("pool") == ["00", "01", "04", "05", "06", "07"]
    for text in ("1 images are listed both", "1 entries", "3 annotated images are in none of these lists"):
        assert any(text in line for line in found.warnings), text
    with pytest.raises(ValueError, match=r"there is one in .*VOC2012"):
        Prepared(tmp_path, root, f"voc:{tmp_path}")


def test_classes_of_voc_are_those_that_fit_the_boxes(tmp_path):
    """Few of Pascal VOC's own classes may be numbered by themselves, or among all twenty."""
    root = made.voc(tmp_path / "voc", range(8))
    for file in (root / "Annotations").iterdir():
        text = file.read_text()
        write(file, text.replace("emu", "sheep").encode())
    own = Prepared(tmp_path, root / "JPEGImages", f"voc:{root}")
    assert own.truth.pixel_classes == ["background", "cat", "dog", "sheep"]
    official = np.asarray([0, 8, 12, 17], np.uint8)
    for number in range(8):
        picture = Image.fromarray(official[made.mask_of(number)])
        write(root / f"SegmentationClass/{number:02}.png", encoded(picture, "PNG"))
    found = Prepared(tmp_path, root / "JPEGImages", f"voc:{root}")
    assert len(found.truth.pixel_classes) == 21
    assert [found.truth.pixel_classes[number] for number in official] == ["background", "cat", "dog", "sheep"]
    for number in range(8):
        write(root / f"SegmentationClass/{number:02}.png", encoded(Image.new("L", SIZE, 5), "PNG"))
    with pytest.raises(ValueError, match=r"data.masks.classes: which classes .* \[background, cat, dog, sheep\]"):
        Prepared(tmp_path, root / "JPEGImages", f"voc:{root}")


BASE = made.coco_of(range(10))
BOX = (4.0, 4.0, 12.0, 12.0)
SQUARE = [[4, 4, 12, 4, 12, 12, 4, 12]]
EMPTY = {"size": [20, 24], "counts": [480]}
LEFT_OUT, MENDED, UNANNOTATED = "left out", "mended", "image counts as not annotated"


@pytest.mark.parametrize(
    ("more", "reason", "fate"),
    [
        (entry(90, 0, (5, 5, 5, 9), 10), "box of no area: 5, 5, 5, 9", LEFT_OUT),
        (entry(90, 0, (5, 5, 5, 9), 10, segmentation=EMPTY), "box of no area: 5, 5, 5, 9", LEFT_OUT),
        (entry(90, 0, (5, 5, 5, 9), 10, segmentation=SQUARE), "box of no area: 5, 5, 5, 9; its shape's is", MENDED),
        (entry(90, 0, (100, 5, 120, 9), 10), "box outside of its image: 100, 5", LEFT_OUT),
        (entry(90, 0, (float("nan"), 5, 9, 9), 10), "box that is no number: nan", UNANNOTATED),
        (entry(90, 0, (5, 5, float("inf"), 9), 10), "box that is no number: 5, 5, inf", UNANNOTATED),
        (entry(90, 0, (9, 5, 5, 9), 10), "box whose right is left", UNANNOTATED),
        (entry(90, 0, BOX, 10) | {"bbox": [1, 2, 3]}, "box that is not four numbers", UNANNOTATED),
        (entry(90, 0, BOX, 10) | {"bbox": "1 2 3 4"}, "box that is not four numbers", UNANNOTATED),
        (entry(90, 0, BOX, 10) | {"bbox": []}, "thing without a box or a shape", UNANNOTATED),
        (entry(90, 0, (20, 4, 30, 12), 10), "box that reaches beyond its image: 20, 4, 30, 12", MENDED),
        (entry(90, 0, BOX, 77), "category id that isn't there: 77", UNANNOTATED),
        (entry(90, 555, BOX, 10), "image id that isn't there: 555", LEFT_OUT),
        (copy.deepcopy(BASE["annotations"][0]), "annotation that stands there twice: 0", LEFT_OUT),
        (entry(0, 0, BOX, 10), "annotation id of two annotations: 0", MENDED),
        ({"id": 90, "image_id": 0}, "annotation without an image, a box or a shape", LEFT_OUT),
        (entry(90, 0, BOX, 10, segmentation=[[1, 1, 5, 5]]), "polygon of fewer than 3 points: 2", LEFT_OUT),
        (entry(90, 0, BOX, 10, segmentation=[[4, 4, 12, 12, 12, 4, 4, 12]]), "polygon that crosses itself", MENDED),
        (entry(90, 0, BOX, 10, segmentation=[[1, 1, 9, 1e9, 9, 9]]), "polygon far outside", LEFT_OUT),
        (entry(90, 0, BOX, 10, segmentation=[[1, 1, 9, 1, 9]]), "shape that is neither", LEFT_OUT),
        (entry(90, 0, BOX, 10, segmentation={"size": [20, 24], "counts": [1, 2]}), "run lengths that don't", LEFT_OUT),
        (entry(90, 0, BOX, 10, segmentation={"size": [20, 24], "counts": "$%"}), "run lengths that don't", LEFT_OUT),
        (entry(90, 0, BOX, 10, segmentation={"size": [24, 20], "counts": [480]}), "run lengths of an", UNANNOTATED),
    ],
)  # fmt: skip
def test_annotations_that_are_wrong(tmp_path, more, reason, fate):
    """Each is said with its image; an image of which it can't be known what is in it is not annotated any more."""
    content = copy.deepcopy(BASE)
    content["annotations"].append(more)
    raw = made.images(tmp_path / "raw", range(10))
    found = Prepared(tmp_path, raw, f"coco:{saved(tmp_path / 'a.json', content)}", seed=3)
    assert [(how, why.startswith(reason)) for _, how, why in found.flaws] == [(fate, True)]
    unannotated = fate == UNANNOTATED
    assert found.counts["annotations_unusable"] == unannotated
    assert ("00" in found.boxes()) is not unannotated
    assert ("00" in found.masks()) is not unannotated
    assert found.counts["train"] + found.counts["test"] == 10
    assert "00" in found.names("train") + found.names("test")
    kind = reason.partition(":")[0].split(" that isn't")[0]
    assert any(line.startswith(f"annotations: 1 x {kind}") for line in found.warnings)
    if "its shape's" in reason:
        assert found.boxes()["00"][-1] == ("cat", (4.0, 6.0, 12.0, 14.0), False)
    others = {name: own for name, own in found.boxes().items() if name != "00"}
    assert others == {name: own for name, own in expected_boxes(range(10)).items() if name != "00"}
    if fate == MENDED and "beyond" in reason:
        assert ("cat", (20.0, 6.0, 24.0, 14.0), False) in found.boxes()["00"]


@pytest.mark.parametrize(
    ("more", "flaws"),
    [
        ({"id": 0, "file_name": "09.png"}, {("00.png", UNANNOTATED), ("09.png", UNANNOTATED)}),
        ({"id": 70, "file_name": "00.png"}, {("00.png", UNANNOTATED)}),
        ({"id": 0, "file_name": "00.png"}, {("00.png", MENDED)}),
        ({"id": 70, "file_name": "away/70.png"}, {("away/70.png", LEFT_OUT)}),
        ({"id": 70, "file_name": "twice.png"}, {("twice.png", LEFT_OUT)}),
        ({"id": 70}, {("image 70", LEFT_OUT)}),
        ({"id": 70, "file_name": "away/08.png", "width": 20, "height": 24}, {("08.png", UNANNOTATED)}),
    ],
)
def test_images_that_are_wrong(tmp_path, more, flaws):
    content = made.coco_of(range(8))
    content["images"].append(more)
    raw = made.images(tmp_path / "raw", range(10))
    write(raw / "a/twice.png", encoded(made.picture(50), "PNG"))
    write(raw / "b/twice.png", encoded(made.picture(51), "PNG"))
    found = Prepared(tmp_path, raw, f"coco:{saved(tmp_path / 'a.json', content)}")
    assert {(name, fate) for name, fate, _ in found.flaws} == flaws


def test_an_image_to_test_on_that_can_not_be_used_is_not_tested_on(tmp_path):
    content = copy.deepcopy(BASE)
    raw = made.images(tmp_path / "raw", range(12))
    where = f"coco:{saved(tmp_path / 'a.json', content)}"
    tested = Prepared(tmp_path, raw, where).names("test")
    for one in content["annotations"]:
        if one["image_id"] == int(tested[-1]):
            one["category_id"] = 77
    saved(tmp_path / "a.json", content)
    found = Prepared(tmp_path, raw, where)
    assert found.names("test") == tested[:-1]
    assert tested[-1] in found.names("train")
    assert tested[-1] not in found.names("train", "boxes") + found.names("train", "mask")
    assert found.counts["annotations_unusable"] == 1
    with pytest.raises(ValueError, match=r"masks and boxes of 1 of 10 annotated images .* data.max_bad = 0.05 allows"):
        Prepared(tmp_path, raw, where, max_bad=0.05)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hello", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        (3, "found something else"),
        ([entry(1, 1, BOX, 1, score=0.5)], "a list, as of a model's results"),
        ({"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}, "found captions"),
        ({"images": [{"id": 1}], "annotations": []}, "there is no list categories"),
        (BASE | {"images": []}, "the list images is empty"),
        (BASE | {"images": [{"id": 1, "file_name": "x.jpg"}]}, "none of its 1 images can be found .* such as x.jpg"),
        (BASE | {"categories": [*BASE["categories"], {"id": 10, "name": "cow"}]}, "10 is called both cat and cow"),
        (BASE | {"categories": ["cat"]}, "a category needs an id and a name, found cat"),
        (BASE | {"annotations": [entry(1, 99, BOX, 10)]}, "none of the 1 annotations is of an image in it"),
        (BASE | {"annotations": []}, "10 images are annotated, and none with a thing or a mask"),
        (BASE | {"categories": [{"id": 10 - i, "name": "background"} for i in range(3)]}, "is called background"),
    ],
)
def test_files_that_are_none_of_coco(tmp_path, content, said):
    raw = made.images(tmp_path / "raw", range(10))
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(ValueError, match=said):
        Prepared(tmp_path, raw, f"coco:{write(tmp_path / 'a.json', text.encode())}")
    assert not (tmp_path / "out").exists()


def test_doubled_names_of_categories_are_one_class(tmp_path):
    content = copy.deepcopy(BASE)
    content["categories"].append({"id": 44, "name": "cat"})
    content["annotations"][0]["category_id"] = 44
    raw = made.images(tmp_path / "raw", range(10))
    found = Prepared(tmp_path, raw, f"coco:{saved(tmp_path / 'a.json', content)}")
    assert found.boxes() == expected_boxes(range(10))
    assert any("several categories are called cat" in line for line in found.warnings)


def test_what_the_fit_cuts_away(tmp_path):
    """Of 40 by 20 pixels the middle 20: of the boxes a half, less than a quarter, nothing, and less than a pixel."""
    write(tmp_path / "raw/a.png", encoded(made.picture(1, (40, 20)), "PNG"))
    write(tmp_path / "raw/b.png", encoded(made.picture(2, (40, 20)), "PNG"))
    boxes = [(5, 5, 15, 15), (0, 5, 12, 15), (0, 0, 9, 9), (20, 10, 20.5, 19)]
    images = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate("ab")]
    annotations = [entry(number, 0, box, 1) for number, box in enumerate(boxes)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    where = f"coco:{saved(tmp_path / 'a.json', content)}"
    found = Prepared(tmp_path, tmp_path / "raw", where, fit="crop", image_size=20)
    kept = [("cat", (0.0, 5.0, 5.0, 15.0), False), ("cat", (0.0, 5.0, 2.0, 15.0), True)]
    assert found.boxes() == {"a": [*kept, ("cat", (10.0, 10.0, 10.5, 19.0), True)], "b": []}
    assert (found.counts["cut_away"], found.counts["things_ignored"]) == (1, 2)
    assert found.truth.pixel_classes == []
    assert not len(found.truth.rows("mask"))


def test_smaller_shapes_lie_over_larger_ones_and_crowds_are_ignored(tmp_path):
    raw = made.images(tmp_path / "raw", [4, 9])

    def square(left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
        return {"segmentation": [[left, top, right, top, right, bottom, left, bottom]]}

    content = made.coco_of([4, 9])
    content["annotations"] = [
        entry(1, 4, (8, 8, 10, 10), 10, **square(8, 8, 10, 10)),
        entry(2, 4, (2, 2, 14, 14), 9, **square(2, 2, 14, 14)),
        entry(3, 4, (6, 6, 11, 11), 8, **square(6, 6, 11, 11), iscrowd=1),
        entry(4, 4, (18, 2, 22, 6), 8),
    ]
    found = Prepared(tmp_path, raw, f"coco:{saved(tmp_path / 'a.json', content)}")
    mask = np.zeros((20, 24), np.uint8)
    mask[2:14, 2:14] = 2
    mask[6:11, 6:11] = 255
    mask[8:10, 8:10] = 1
    mask[2:6, 18:22] = 255
    assert found.masks()["04"].tolist() == padded(mask).tolist()
    assert [ignored for _, _, ignored in found.boxes()["04"]] == [False, False, True, False]
    assert any("1 of 4 annotations have a box and no shape" in line for line in found.warnings)


def test_equal_images_that_are_annotated_otherwise(tmp_path):
    """The first is kept, and it is said; what is said of an equal image that nobody annotated goes to the first."""
    raw = made.images(tmp_path / "raw", range(8))
    content = made.coco_of(range(8))
    for number, name in enumerate(["same", "other", "bad"], start=20):
        write(raw / f"z{name}.png", encoded(made.picture(0), "PNG"))
        content["images"].append({"id": number, "file_name": f"z{name}.png"})
    for name, box in made.things(0):
        content["annotations"].append(entry(500 + len(name), 20, box, 10 - NAMES.index(name)))
        content["annotations"].append(entry(600 + box[0], 21, (1, 1, 9, 9), 8))
    for one in content["annotations"]:
        one.pop("segmentation", None)
    found = Prepared(tmp_path, raw, f"coco:{saved(tmp_path / 'a.json', content)}", test_fraction=0.0)
    assert found.counts["duplicates"] == 3
    assert found.counts["annotation_conflicts"] == 2
    assert found.boxes() == expected_boxes(range(8))
    assert any("2 images equal another one that is annotated otherwise" in line for line in found.warnings)


def test_masks_of_all_kinds(tmp_path):
    """By palette of 8 and of 2 bits, grey of 16 and of 4 bits: the numbers are the same."""
    raw = made.images(tmp_path / "raw", range(4))
    palettes = [Image.fromarray(made.mask_of(number)).convert("P") for number in range(2)]
    for one, colours in zip(palettes, (256, 4), strict=True):
        one.putpalette([value % 256 for value in range(7, 7 + 3 * colours)])
    files = [
        encoded(palettes[0], "PNG"),
        encoded(palettes[1], "PNG"),
        encoded(Image.fromarray(made.mask_of(2).astype(np.uint16)), "PNG"),
        grey_of_four_bits(made.mask_of(3)),
    ]
    assert [content[24] for content in files] == [8, 2, 16, 4]
    for number, content in enumerate(files):
        write(tmp_path / f"masks/{number:02}.PNG", content)
    write(tmp_path / "masks/readme.txt", b"classes")
    found = Prepared(tmp_path, raw, f"masks:{tmp_path / 'masks'}", test_fraction=0.0)
    assert found.truth.pixel_classes == ["0", "1", "2", "3"]
    assert len(found.masks()) == 4
    for number, mask in found.masks().items():
        assert mask.tolist() == padded(made.mask_of(int(number))).tolist(), number
    assert any("1 files there are no PNG" in line for line in found.warnings)


def grey_of_four_bits(mask: np.ndarray) -> bytes:
    """A PNG that Pillow doesn't write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = mask.shape
    rows = b"".join(b"\0" + (row[::2] << 4 | row[1::2]).astype(np.uint8).tobytes() for row in mask)
    header = struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_masks_that_are_wrong(tmp_path):
    raw = made.images(tmp_path / "raw", range(12))
    folder = made.masks(raw / "masks", range(6))
    bad = {
        "06": (encoded(Image.new("L", (24, 21)), "PNG"), "mask of another size than its image: 24 x 21"),
        "07": (encoded(Image.new("L", SIZE, 9), "PNG"), "mask with numbers that are no class: 9"),
        "08": (encoded(Image.new("RGB", SIZE), "PNG"), "mask of colours"),
        "09": (encoded(Image.new("L", SIZE), "PNG")[:-30], "mask that is damaged"),
        "10": (b"hello", "mask that is no PNG"),
    }
    for name, (content, _) in bad.items():
        write(folder / f"{name}.png", content)
    write(folder / "99.png", encoded(Image.new("L", SIZE), "PNG"))
    classes = Masks(("background", *NAMES))
    found = Prepared(tmp_path, raw, f"masks:{folder}", masks=classes)
    by_name = {Path(name).stem: (fate, reason) for name, fate, reason in found.flaws}
    assert by_name.pop("99") == (LEFT_OUT, "mask without an image: image that is not below data.path")
    assert by_name.keys() == bad.keys()
    for name, (fate, reason) in by_name.items():
        assert fate == UNANNOTATED
        assert reason.startswith(bad[name][1])
    assert sorted(found.masks()) == [f"{number:02}" for number in range(6)]
    there = {name for split in ("train", "test", "pool") for name in found.names(split)}
    assert sorted(there) == [f"{number:02}" for number in range(12)]
    assert found.counts["other_files"] == 12


def test_numbers_that_are_found_become_classes(tmp_path):
    raw = made.images(tmp_path / "raw", range(4))
    table = np.asarray([3, 40, 255, 200], np.uint8)
    for number in range(4):
        write(tmp_path / f"masks/{number:02}.png", encoded(Image.fromarray(table[made.mask_of(number)]), "PNG"))
    found = Prepared(tmp_path, raw, f"masks:{tmp_path / 'masks'}", test_fraction=0.0)
    assert found.truth.pixel_classes == ["3", "40", "200"]
    classes = np.asarray([0, 1, 255, 2], np.uint8)
    for number, mask in found.masks().items():
        assert mask.tolist() == padded(classes[made.mask_of(int(number))]).tolist()
    named = Masks(("ground", "cat", "dog"), (3, 40, 200), 255)
    same = Prepared(tmp_path, raw, f"masks:{tmp_path / 'masks'}", test_fraction=0.0, masks=named)
    assert same.truth.pixel_classes == ["ground", "cat", "dog"]
    assert {name: mask.tolist() for name, mask in same.masks().items()} == {
        name: mask.tolist() for name, mask in found.masks().items()
    }


def test_black_and_white_masks_need_to_be_told(tmp_path):
    raw = made.images(tmp_path / "raw", range(4))
    for number in range(4):
        picture = Image.fromarray((made.mask_of(number) > 0).astype(np.uint8) * 255)
        write(tmp_path / f"masks/{number:02}.png", encoded(picture, "PNG"))
    with pytest.raises(ValueError, match=r"found 0, and 255.*values: \[0, 255\], ignore: -1"):
        Prepared(tmp_path, raw, f"masks:{tmp_path / 'masks'}")
    told = Masks(("background", "thing"), (0, 255), -1)
    found = Prepared(tmp_path, raw, f"masks:{tmp_path / 'masks'}", masks=told)
    assert (found.masks()["00"][2:-2] == (made.mask_of(0) > 0)).all()


def test_xml_that_is_wrong(tmp_path):
    root = made.voc(tmp_path / "voc", range(6))
    numbers = range(6, 14)
    made.images(root / "JPEGImages", numbers)
    good = made.xml([("cat", (2, 2, 9, 9))])
    texts = {
        "06": (b"<annotation><object>", "XML file that is damaged"),
        "07": (b"<html></html>", "XML file that is no annotation: its root is called html"),
        "08": (good.replace("cat", "").encode(), "thing without a name"),
        "09": (good.replace("<xmin>3", "<xmin>a").encode(), "box that is no number"),
        "10": (good.replace("<xmin>3", "<xmin>20").encode(), "box whose right is left"),
        "11": (made.xml([], size=(5, 5)).encode(), "image whose size was annotated otherwise: 5 x 5"),
        "12": (good.encode("utf-16")[:40], "XML file that is damaged"),
    }
    for name, (content, _) in texts.items():
        write(root / f"Annotations/{name}.xml", content)
    write(root / "Annotations/77.xml", good.encode())
    write(root / "Annotations/renamed.xml", good.replace("<size>", "<filename>13.png</filename><size>").encode())
    hard = made.xml([("cat", (2, 2, 9, 9))], size=(0, 0), difficult=1)
    write(root / "Annotations/05.xml", hard.encode())
    found = Prepared(tmp_path, root / "JPEGImages", f"voc:{root}", masks=Masks(("background", *NAMES)), max_bad=0.9)
    by_name = {Path(name).stem: (fate, reason) for name, fate, reason in found.flaws}
    assert by_name.pop("77")[0] == LEFT_OUT
    assert by_name.keys() == texts.keys()
    for name, (fate, reason) in by_name.items():
        assert fate == UNANNOTATED
        assert reason.startswith(texts[name][1])
    assert found.boxes()["05"] == [("cat", (2.0, 4.0, 9.0, 11.0), True)]
    assert found.boxes()["13"] == [("cat", (2.0, 4.0, 9.0, 11.0), False)]
    few = Prepared(tmp_path, root / "JPEGImages", f"voc:{root}", masks=Masks(("background", "cat", "dog")), max_bad=1.0)
    assert any("thing of a class that data.masks.classes doesn't name: emu" in reason for _, _, reason in few.flaws)
    assert few.truth.thing_classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"annotations": "labelme:x"}, "expected masks:FOLDER, coco:FILE.json or voc:FOLDER, found labelme:x"),
        ({"annotations": "cocoo:x"}, "did you mean 'coco'"),
        ({"annotations": "a.json"}, "expected masks:FOLDER"),
        ({"annotations": "coco:gone.json"}, "data.annotations: there is no file gone.json"),
        ({"annotations": "masks:gone"}, "there is no folder gone"),
        ({"annotations": "coco:{file}", "annotations_test": "coco:b.json"}, "data.annotations_test: there is no file"),
        ({"annotations": "masks:{raw}", "annotations_test": "coco:{file}"}, "coco:FILE.json in both"),
        ({"annotations_test": "coco:{file}"}, "says more of data.annotations, which is ''"),
        ({"masks": Masks(("a", "b"))}, "data.masks says more of data.annotations"),
        ({"annotations": "coco:{file}", "masks": Masks(("a", "b"))}, "data.masks is for masks: and voc:"),
        ({"annotations": "coco:{file}", "source": "imagefolder"}, "data.annotations is for data.source folder"),
        ({"annotations": "coco:{file}", "labels": "a.csv"}, "leave one of them ''"),
        ({"annotations": "coco:{file}", "probe_source": "samples:fashion"}, "set data.probe_source to same"),
        ({"annotations": "masks:{empty}"}, "found no PNG file"),
        ({"annotations": "voc:{raw}"}, "holds no Annotations"),
    ],
)
def test_settings_that_can_not_be(tmp_path, settings, said):
    raw = made.images(tmp_path / "raw", range(3))
    (tmp_path / "empty").mkdir()
    places = {"raw": raw, "file": saved(tmp_path / "a.json", BASE), "empty": tmp_path / "empty"}
    filled = {key: one.format(**places) if isinstance(one, str) else one for key, one in settings.items()}
    with pytest.raises(ValueError, match=said):
        Prepared(tmp_path, raw, **{"annotations": ""} | filled)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": ("a", "b"), "values": (1,)}, "each class needs its value"),
        ({"classes": ("a", "a")}, "classes names one twice: a"),
        ({"classes": ("a", "b"), "values": (0, 255)}, "255 is both the value of a class and what is ignored"),
        ({"values": (0, 70_000)}, "values are from 0 to 65535, found 70000"),
    ],
)
def test_numbers_of_masks_that_can_not_be(settings, said):
    with pytest.raises(ValueError, match=said):
        Masks(**settings)


def test_shipped_scenes(tmp_path, monkeypatch):
    """Some of them, as their file has them."""
    monkeypatch.chdir(ROOT)
    file = paths.SAMPLES / "scenes" / "scenes.parquet"
    table = pq.read_table(file)
    few = [row for split in ("test", "train", "pool") for row in _first(table, split, 8)]
    pq.write_table(type(table).from_pylist(few, table.schema), tmp_path / "scenes.parquet")
    monkeypatch.setattr(module, "open_source", lambda *_, **__: _scenes(tmp_path / "scenes.parquet"))
    found = Prepared(tmp_path, tmp_path, "", source="samples:scenes", image_size=64)
    assert [len(found.dataset.rows(split)) for split in ("test", "train", "pool")] == [8, 8, 8]
    rows = {f"{row['item']}": row for row in few if row["mask"]}
    masks, boxes = found.masks(), found.boxes()
    assert masks.keys() == rows.keys() == boxes.keys()
    for name, row in rows.items():
        assert [(kind, [*map(int, box)]) for kind, box, _ in boxes[name]] == [
            (kind, row["boxes"][4 * i : 4 * i + 4]) for i, kind in enumerate(row["labels"])
        ]
        for kind, (left, top, right, bottom), _ in boxes[name]:
            inside = masks[name][int(top) : int(bottom), int(left) : int(right)]
            assert (inside == found.truth.pixel_classes.index(kind)).any()
    assert found.truth.pixel_classes == ["background", *found.truth.thing_classes]


def _first(table: Any, split: str, count: int) -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if row["split"] == split][:count]
