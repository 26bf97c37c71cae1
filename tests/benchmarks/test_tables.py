"""What benchmarks write into the guides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.starts import gap
from benchmarks.tables import replace_table

GUIDE = "before\n<!-- a: begin -->\nold\n<!-- a: end -->\nbetween\n<!-- b: begin -->\nkept\n<!-- b: end -->\n"


def test_a_table_takes_the_place_between_its_own_marks_alone(tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    file.write_text(GUIDE)
    replace_table(file, "a", "new\nlines")
    assert file.read_text() == GUIDE.replace("old", "new\nlines")
    with pytest.raises(SystemExit, match="has no line <!-- c: begin -->"):
        replace_table(file, "c", "new")
    assert file.read_text() == GUIDE.replace("old", "new\nlines")


def rows(right: list[list[int]]) -> list[dict]:
    return [{"seed": seed, "linear_right": one} for seed, one in enumerate(right)]


def test_a_gap_is_of_pairs_of_a_seed_and_an_image() -> None:
    ours, theirs = rows([[1, 1, 0, 1], [1, 1, 1, 1]]), rows([[1, 0, 0, 1], [0, 0, 1, 1]])
    found = gap(ours, theirs, "linear", np.arange(4))
    assert found.mean == pytest.approx(3 / 8)
    assert found.low <= found.mean <= found.high


def test_rows_that_answer_alike_on_four_images_may_differ_on_others() -> None:
    ours = rows([[1, 1, 0, 1], [1, 1, 1, 1]])
    found = gap(ours, ours, "linear", np.arange(4))
    assert found.mean == 0
    assert -0.5 < found.low < -0.4
    assert found.high == -found.low
    assert not found.sure


def test_images_of_one_thing_are_drawn_together() -> None:
    """Twenty answers about two things tell less than about twenty."""
    ours, theirs = rows([[1] * 10 + [0] * 10] * 3), rows([[0] * 20] * 3)
    groups = np.repeat([0, 1], 10)
    together, apart = gap(ours, theirs, "linear", groups), gap(ours, theirs, "linear", np.arange(20))
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
