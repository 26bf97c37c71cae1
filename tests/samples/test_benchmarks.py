"""What the benchmarks' tables must say."""

from __future__ import annotations

import numpy as np

from benchmarks.methods import TRIED_ON_TEST, _rows
from tests.conftest import ROOT

NOTE = "† Its settings were once tried out on these test images: the row flatters."


def test_rows_of_what_was_tried_out_on_test_images_are_marked():
    images = np.arange(6)
    one = {"linear": 0.8, "knn": 0.7, "findings": [], "seed": 0, "right": np.ones(6), "rows": images, "other": ""}
    rows = {name: [one] for name in ("rotation", "byol", "random")}
    marked = list(_rows("fashion", rows, images))
    names = [line.split(" | ")[0] for line in marked if line.startswith("| ")][1:]
    assert names == ["| rotation †", "| byol", "| *random*"]
    assert marked[-2:] == ["", NOTE]
    assert not [line for line in _rows("emoji", rows, images) if "†" in line]


def test_the_published_tables_say_so_and_so_does_the_readme():
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    table = text.split("### fashion, resnet")[1].split("###")[0]
    assert all(f"| {name} † |" in table for name in TRIED_ON_TEST["fashion"])
    assert table.count("†") == len(TRIED_ON_TEST["fashion"]) + 1
    assert NOTE in table
    assert "Nothing is chosen on test images" not in (ROOT / "README.md").read_text(encoding="utf-8")


def test_distances_count_seeds_and_test_images():
    """Ten of a hundred images more, the same ones with every seed: seeds alone would be infinitely sure."""
    images = np.arange(100)
    rows = {
        name: [
            {"linear": 0.5, "knn": 0.5, "findings": [], "seed": seed, "right": right, "rows": images, "other": ""}
            for seed in (0, 1)
        ]
        for name, right in (("byol", (images < 60) * 1.0), ("random", (images < 50) * 1.0))
    }
    (line,) = [one for one in _rows("emoji", rows, images) if one.startswith("| byol")]
    assert "+10.0 (+4.0 to +16.0)" in line
