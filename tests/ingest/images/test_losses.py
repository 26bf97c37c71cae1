"""What is lost on the way to 8 bits of one size is said, and nothing is dropped for it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tiffs
from data_fixtures import encoded, fill, scene, write
from PIL import Image
from tiffs import Page, tiff

from sslflow.data.dataset import Dataset
from sslflow.ingest.images import prepare as module
from sslflow.ingest.images.examine import examine
from sslflow.ingest.images.prepare import prepare
from sslflow.settings.params import schema

SIDE = 16


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(
        module, "examine_all", lambda tasks, decoder, *_: (one for part in tasks for one in examine(part, decoder))
    )


def prepared(tmp_path: Path, **settings) -> tuple[dict[str, int], list[str], Dataset]:
    lines: list[str] = []
    options = {"source": "folder", "path": str(tmp_path / "raw"), "image_size": SIDE, "channels": 1, **settings}
    counts = prepare(tmp_path / "out", lines.append, **options)
    return counts, lines, Dataset(tmp_path / "out")


def dark(number: int, low: int = 90) -> np.ndarray:
    """A cell as a camera of 12 bits sees it: a spot on noise, uint16."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE] - rng.uniform(4, 12, 2)[:, None, None]
    return np.round(low + rng.normal(0, 2, (SIDE, SIDE)) + 25 * np.exp(-(x * x + y * y) / 8)).clip(0).astype(np.uint16)


WRITERS = {
    "png": lambda values: encoded(Image.fromarray(values), "PNG"),
    "tif": lambda values: encoded(Image.fromarray(values), "TIFF"),
    "pgm": lambda values: f"P5 {SIDE} {SIDE} 4095\n".encode() + values.astype(">u2").tobytes(),
    "jp2": lambda values: encoded(Image.fromarray(values), "JPEG2000"),
    "tiff": lambda values: tiff(Page(np.repeat(values[..., None], 3, axis=2), 2, 16, planar=2)),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_dark_images_are_kept_and_the_setting_is_named(tmp_path, ending):
    for number in range(30):
        write(tmp_path / f"raw/{number:02d}.{ending}", WRITERS[ending](dark(number)))
    counts, lines, _ = prepared(tmp_path)
    assert (counts["images"], counts["duplicates"]) == (30, 0)
    narrow = next(line for line in lines if "less than an eighth" in line)
    assert narrow.startswith("warning: 30 images, such as 00.")
    assert ("12 bits" if ending == "pgm" else "16 bits") in narrow
    low, high = (int(number) for number in narrow.partition("sixteen_bit to [")[2].partition("]")[0].split(", "))
    assert 80 <= low <= 95
    assert 105 <= high <= 125
    assert any("look like another one once prepared" in line for line in lines) == (ending != "pgm")
    for setting in ((float(low), float(high)), "stretch"):
        counts, lines, dataset = prepared(tmp_path, sixteen_bit=setting)
        assert counts["images"] == 30
        assert not [line for line in lines if line.startswith("warning")]
        images = dataset.read(np.arange(30))["images"].numpy()
        assert len(np.unique(images.reshape(30, -1), axis=0)) == 30
        assert images.max() - images.min() > 200
    assert images.std(axis=(1, 2, 3)).min() > 30


def test_one_range_for_all_keeps_brightness(tmp_path):
    for number, low in enumerate((90, 90, 140)):
        write(tmp_path / f"raw/{number}.png", WRITERS["png"](dark(number, low)))
    _, _, dataset = prepared(tmp_path, sixteen_bit=(80.0, 180.0))
    means = dataset.read(np.arange(3))["images"].numpy().mean(axis=(1, 2, 3))
    assert means[2] - means[:2].max() > 100
    _, _, dataset = prepared(tmp_path, sixteen_bit="stretch")
    means = dataset.read(np.arange(3))["images"].numpy().mean(axis=(1, 2, 3))
    assert np.ptp(means) < 30


def test_images_of_8_bits_or_of_a_full_range_need_no_warning(tmp_path):
    fill(tmp_path / "raw", 3)
    write(tmp_path / "raw/a.png", encoded(Image.fromarray(dark(1) * 300), "PNG"))
    assert not prepared(tmp_path)[1]


def test_values_without_a_white_are_told(tmp_path):
    for number, kind in enumerate(("f4", "i2", "u4")):
        write(tmp_path / f"raw/{number}.tif", tiff(Page(dark(number)[..., None].astype(kind), 1, 8 * int(kind[1]))))
    (line,) = prepared(tmp_path)[1]
    assert line.startswith("warning: 3 images, such as 0.tif, have values that no white is defined for")
    assert not prepared(tmp_path, sixteen_bit=(80.0, 130.0))[1]


@pytest.mark.parametrize("kind", ["white on transparent", "colours of one luma", "details", "black frames"])
def test_what_differs_in_the_file_is_no_copy(tmp_path, kind):
    for number in range(6):
        match kind:
            case "white on transparent":
                values = np.zeros((SIDE, SIDE, 4), np.uint8)
                values[2 * number : 2 * number + 2] = 255
            case "colours of one luma":
                values = np.zeros((SIDE, SIDE, 3), np.uint8)
                values[:] = [(76, 76, 76), (255, 0, 0), (0, 130, 0), (85, 40, 240), (0, 104, 132), (200, 20, 40)][
                    number
                ]
            case "details":
                values = np.full((40 * SIDE, 40 * SIDE, 3), 200, np.uint8)
                values[300, 20 * number] = 210
            case _:
                values = np.zeros((SIDE + number, SIDE, 3), np.uint8)
        write(tmp_path / f"raw/{number}.png", encoded(Image.fromarray(values), "PNG"))
    counts, lines, _ = prepared(tmp_path)
    assert (counts["images"], counts["duplicates"]) == (6, 0)
    constant = next(line for line in lines if "one colour once prepared" in line)
    assert "background" in constant
    assert any("look like another one once prepared" in line for line in lines)
    assert not any("duplicates" in line for line in lines)


def test_a_test_image_that_another_looks_like_is_told(tmp_path):
    for split, label, low in (("train", "a", 90), ("test", "a", 91), ("train", "b", 20_000), ("test", "b", 40_000)):
        values = np.full((SIDE, SIDE), low, np.uint16)
        values[0, :8] = 50_000
        write(tmp_path / f"raw/{split}/{label}/{low}.png", encoded(Image.fromarray(values), "PNG"))
    counts, lines, _ = prepared(tmp_path, source="imagefolder")
    assert (counts["images"], counts["leaked"]) == (4, 0)
    assert any(
        "train/a/90.png looks like another one" in line and "1 to learn from look like a test image" in line
        for line in lines
    )


def test_what_is_left_out_is_counted_and_told(tmp_path):
    pages = [Page(np.full((SIDE, SIDE, 1), number, np.uint8)) for number in range(4)]
    pages[0].values[0] = 99
    write(tmp_path / "raw/a.tif", tiff(*pages))
    write(
        tmp_path / "raw/b.gif",
        encoded(scene(SIDE, SIDE), "GIF", save_all=True, append_images=[scene(SIDE, SIDE, seed=1)]),
    )
    bands = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 5), np.uint8)
    write(tmp_path / "raw/c.tif", tiff(Page(bands, 2, extra=[0, 0], compression=tiffs.DEFLATE)))
    counts, lines, _ = prepared(tmp_path)
    assert counts["left_out"] == 6
    assert (
        "warning: 2 images, such as a.tif, have more than one page or frame: the first was read, 4 were left out"
        in lines
    )
    assert "warning: c.tif has bands besides the colours: 2 were left out" in lines


def test_pictures_that_cannot_be_read_count_as_bad(tmp_path):
    fill(tmp_path / "raw", 5)
    for number in range(45):
        write(tmp_path / f"raw/IMG_{number}.CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(number))
    with pytest.raises(
        ValueError, match=r"45 of 50 images can't be used, more than data.max_bad = 0.5 allows \(45 not sup"
    ):
        prepared(tmp_path)
    counts, _, dataset = prepared(tmp_path, max_bad=0.95)
    assert (counts["images"], counts["quarantined"], counts["other_files"]) == (5, 45, 0)
    with (dataset.folder / "quarantine.csv").open(encoding="utf-8", newline="") as handle:
        assert {row["reason"] for row in csv.DictReader(handle)} == {
            "not supported: a camera's raw file; convert it to PNG or TIFF first"
        }


@pytest.mark.parametrize("value", [[400, 90], [1], [1, 2, 3], "strech", 4095, [0, "9"], [True, False]])
def test_a_wrong_range_is_an_error(value):
    from sslflow.settings.params import _value

    problems: list[str] = []
    assert _value("data.sixteen_bit", value, schema(prepare)["sixteen_bit"].annotation, problems) is None
    (problem,) = problems
    assert "should be full, stretch, or [low, high]" in problem
