"""The shipped scenes: complete, split by code point, boxes and masks that fit, and what their script makes."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import ROOT

SAMPLES = ROOT / "data" / "samples"
FOLDER = SAMPLES / "scenes"
SIDE = 64


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return pq.read_table(FOLDER / "scenes.parquet").to_pylist()


@pytest.fixture(scope="module")
def known(rows) -> list[dict]:
    return [row for row in rows if row["split"] != "pool"]


@pytest.fixture(scope="module")
def classes() -> list[str]:
    return json.loads(pq.read_schema(FOLDER / "scenes.parquet").metadata[b"classes"])


@pytest.fixture(scope="module")
def script():
    """The module that builds the sample; it stands beside the data, outside the package."""
    sys.path.insert(0, str(SAMPLES))
    try:
        import scenes  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(str(SAMPLES))
    return scenes


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def boxes(row: dict) -> np.ndarray:
    return np.array(row["boxes"], int).reshape(-1, 4)


def test_the_folder_is_small_and_has_as_many_scenes_as_it_says(rows):
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 10e6
    assert Counter(row["split"] for row in rows) == {"pool": 4500, "train": 1000, "test": 500}
    assert len({row["item"] for row in rows}) == len({row["image"] for row in rows}) == len(rows)
    assert all(row["item"].startswith(f"{row['split']}-") for row in rows)


def test_the_pool_has_no_truth_and_the_rest_has_all_of_it(rows, known):
    for row in rows:
        given = [row[name] is not None for name in ("mask", "boxes", "labels")]
        assert given == [row["split"] != "pool"] * 3
    for row in known:
        assert len(row["boxes"]) == 4 * len(row["labels"])
        assert len(row["labels"]) == len(row["shown"]) <= 5


def test_no_emoji_of_a_tested_scene_is_in_another(rows):
    shown = {
        split: {one.split("/")[1] for row in rows if row["split"] == split for one in row["shown"]}
        for split in ("pool", "train", "test")
    }
    assert len(shown["test"]) > 100
    assert not shown["test"] & (shown["train"] | shown["pool"])
    emoji = pq.read_table(SAMPLES / "emoji" / "noto.parquet", columns=["code_point", "split"]).to_pylist()
    split_of = {row["code_point"]: row["split"] for row in emoji}
    for split, code_points in shown.items():
        assert {split_of[code_point] for code_point in code_points} == {"test" if split == "test" else "train"}


def test_each_class_is_there_often_enough(known, classes):
    assert classes[0] == "background"
    assert classes[1:] == sorted(classes[1:])
    for split, least in (("train", 250), ("test", 120)):
        counts = Counter(label for row in known if row["split"] == split for label in row["labels"])
        assert sorted(counts) == classes[1:]
        assert min(counts.values()) > least


def test_a_few_scenes_hold_nothing(known):
    for split, count in (("train", 1000), ("test", 500)):
        nothing = [row for row in known if row["split"] == split and not row["labels"]]
        assert 0.01 < len(nothing) / count < 0.05
        assert all((decoded(row["mask"]) == 0).all() for row in nothing)


def test_boxes_fit_the_masks(known, classes):
    for row in known:
        mask, covered = decoded(row["mask"]), np.zeros((SIDE, SIDE), bool)
        assert mask.shape == (SIDE, SIDE)
        for (left, top, right, bottom), label in zip(boxes(row), row["labels"], strict=True):
            assert 0 <= left < right <= SIDE
            assert 0 <= top < bottom <= SIDE
            here = mask[top:bottom, left:right] == classes.index(label)
            assert here.sum() >= 24
            assert all(edge.any() for edge in (here[0], here[-1], here[:, 0], here[:, -1]))
            covered[top:bottom, left:right] = True
        assert (mask[~covered] == 0).all()
        assert set(np.unique(mask)) - {0} == {classes.index(label) for label in row["labels"]}


def test_images_are_colour_and_varied(known):
    images = np.stack([decoded(row["image"]) for row in known[:200]])
    assert images.shape == (200, SIDE, SIDE, 3)
    assert images.std((1, 2, 3)).min() > 3
    assert images.mean((1, 2)).std(0).min() > 25
    sides = np.concatenate([(boxes(row)[:, 2:] - boxes(row)[:, :2]).max(1) for row in known])
    assert np.percentile(sides, 5) < 14
    assert np.percentile(sides, 95) > 35


def test_the_script_makes_these_scenes(script, rows):
    by_item = {row["item"]: row for row in rows}
    for split, numbers in (("train", (0, 7, 999)), ("test", (0, 499))):
        drawings = script.read_drawings(split)
        for number in numbers:
            row, scene = by_item[f"{split}-{number:05}"], script.draw_scene(drawings, split, number)
            np.testing.assert_array_equal(decoded(row["mask"]), scene.mask)
            np.testing.assert_array_equal(boxes(row), np.array(scene.boxes).reshape(-1, 4))
            assert row["labels"] == scene.labels
            assert row["shown"] == scene.shown
            assert np.abs(decoded(row["image"]) - scene.image.astype(float)).mean() < 8  # lossy
