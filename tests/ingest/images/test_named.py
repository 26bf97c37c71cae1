"""Labels from a table of one's own."""

from __future__ import annotations

import numpy as np
import pytest
from data_fixtures import encoded, scene
from PIL import Image

from sslflow.data.dataset import Dataset
from sslflow.data.splits import POOL, TEST, TRAIN
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.listing import write_listing

NAMES = [f"{'deep/er/' if number % 2 else ''}{number}.png" for number in range(24)]
CLASSES = ("cat", "dög")


@pytest.fixture
def raw(tmp_path):
    for number, name in enumerate(NAMES):
        file = tmp_path / "raw" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(Image.fromarray(np.roll(np.asarray(scene(12, 12)), number * 5)), "PNG"))
    return tmp_path / "raw"


def table(raw, *rows: str, header: str = "path,label", encoding: str = "utf-8"):
    file = raw.parent / "labels.csv"
    file.write_text("".join(f"{row}\n" for row in (header, *rows)), encoding=encoding)
    return file


def prepared(raw, file, **settings):
    out, said = raw.parent / "prepared", []
    prepare(out, said.append, source="folder", path=str(raw), labels=str(file), image_size=12, channels=3, **settings)
    return Dataset(out), said


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_some_images_of_a_folder_get_their_labels_and_the_rest_stays_a_pool(raw, encoding):
    rows = [f"{name},{CLASSES[number % 2]}" for number, name in enumerate(NAMES[:10])]
    dataset, said = prepared(
        raw, table(raw, *rows, "11.png,", f"{NAMES[12]},NaN", encoding=encoding), test_fraction=0.4
    )
    assert tuple(dataset.classes) == CLASSES
    assert len(dataset.rows(POOL)) == 20, "an image to train on by probes is learnt from as well"
    assert len(dataset.labelled_rows(TEST)) == 4
    assert len(dataset.labelled_rows(TRAIN)) == 6
    for row, (path, split) in enumerate(zip(dataset.column("path"), dataset.column("split"), strict=True)):
        wanted = NAMES.index(path) % 2 if NAMES.index(path) < 10 and split != POOL else -1
        assert dataset.labels[row] == wanted
    tested = set(dataset.column("path", dataset.rows(TEST)))
    assert tested.isdisjoint(dataset.column("path", dataset.rows(POOL)))
    assert not [line for line in said if "look like another" in line], "it is the same picture"
    assert any("labels of 10 of 24 images, 4 of them to test on" in line for line in said)


def test_where_every_image_has_a_label_there_is_no_pool(raw):
    dataset, _ = prepared(raw, table(raw, *(f"{name},{CLASSES[row % 2]}" for row, name in enumerate(NAMES))))
    assert not len(dataset.rows(POOL))
    assert len(dataset.pretraining_rows) == len(dataset.rows(TRAIN)) == len(NAMES) - len(dataset.rows(TEST))


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (["nowhere.png,cat"], "path,label", "1 of the 1 images that .* are not below data.path, such as nowhere.png"),
        (["0.png,cat", "0.png,dog"], "path,label", "calls 0.png both cat and dog"),
        (["0.png,cat"], "file,class", "needs the columns path and label; found: file, class"),
        ([], "path,label", "found: no rows"),
        (["0.png,", "2.png,nan"], "path,label", "no label in any of its 2 rows"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(raw, rows, header, words):
    with pytest.raises(ValueError, match=words):
        prepared(raw, table(raw, *rows, header=header))


def test_no_table_no_text_and_images_that_have_labels_already(raw):
    with pytest.raises(ValueError, match="there is no file"):
        prepared(raw, raw / "nothing.csv")
    binary = raw.parent / "labels.csv"
    binary.write_bytes(b"path,label\n\xff\xfe\x00,cat\n")
    with pytest.raises(ValueError, match="not a comma-separated table in UTF-8"):
        prepared(raw, binary)
    with pytest.raises(ValueError, match="without labels of their own"):
        prepare(
            raw.parent / "out",
            print,
            source="samples:emoji",
            labels=str(table(raw, "0.png,cat")),
            image_size=12,
            channels=3,
        )


def test_a_changed_table_is_seen_by_the_scan(raw):
    file, listing = table(raw, "0.png,cat"), raw.parent / "listing.csv"
    rows = write_listing(listing, source="folder", path=str(raw), labels=str(file))
    before = listing.read_text()
    assert rows == write_listing(listing, source="folder", path=str(raw)) + 1
    file.write_text("path,label\n0.png,elephant\n")
    write_listing(listing, source="folder", path=str(raw), labels=str(file))
    assert listing.read_text() != before
