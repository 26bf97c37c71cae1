"""What stages wrote of masks and boxes, as scores; files of other images count for nothing."""

from __future__ import annotations

import fakewhere
import numpy as np
import pytest

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.examination.where.found import Found, Way
from sslflow.runtime.files import write_metrics

WAYS = {("linear", 0.1): 0.7, ("frozen", 0.1): 0.8, ("tuned", 0.01): 0.7, ("tuned", 0.1): 0.9}


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fakewhere.scenes()
    dataset = Dataset()
    rows = dataset.annotated_rows(TEST, "mask")
    assert dataset.truth
    for seed in (0, 1):
        for name, less in (("simclr", 0.0), ("scratch", 0.3)):
            right = {way: share - less for way, share in WAYS.items()}
            fakewhere.segmented(name, seed, dataset.truth.masks(rows).numpy(), rows, right)
            own = {way: share for way, share in right.items() if way[0] != "linear"}
            fakewhere.detected(name, seed, dataset.truth.things(rows), rows, own)
    return Found(dataset, [0, 1, 2])


def test_ways_stand_in_order_and_scores_follow_what_is_right(found):
    assert found.ways("simclr", "miou") == [
        Way("tuned", 0.01),
        Way("linear", 0.1),
        Way("frozen", 0.1),
        Way("tuned", 0.1),
    ]
    assert found.ways("rotation", "miou") == []
    for metric in ("miou", "map", "map50"):
        few, many = (found.over("simclr", metric, Way("tuned", fraction)) for fraction in (0.01, 0.1))
        assert 0 < few.mean < many.mean <= 1
        assert len(found.values("simclr", metric, Way("tuned", 0.1))) == 2
        gap = found.gap(("simclr", Way("tuned", 0.1)), ("scratch", Way("tuned", 0.1)), metric)
        means = [np.mean(found.values(name, metric, Way("tuned", 0.1))) for name in ("simclr", "scratch")]
        assert gap.mean == pytest.approx(means[0] - means[1])
        assert found.gap(("simclr", Way("tuned", 0.1)), ("rotation", Way("tuned", 0.1)), metric) is None
    assert found.over("simclr", "map", Way("linear", 0.1)) is None


def test_map_is_at_most_map_at_half(found):
    way = Way("tuned", 0.1)
    pairs = zip(found.values("simclr", "map", way), found.values("simclr", "map50", way), strict=True)
    assert all(whole <= half for whole, half in pairs)


def test_a_detector_that_finds_nothing_has_a_score_of_nothing(found):
    columns = ("protocol", "fraction", "row", "label", "score", "left", "top", "right", "bottom")
    row = int(found.rows("map")[0])
    lines = [("tuned", 0.1, row, 0, 0.9, 0.0, 0.0, 9.0, 9.0)]
    fakewhere.write(paths.detected("dull", 0) / "detections.parquet", columns, lines)
    measured = {"frozen_map_1pct": 0.0, "frozen_map50_1pct": 0.0, "tuned_map_10pct": 0.0, "things_1pct": 4.0}
    write_metrics(paths.metrics("detect", "dull-0"), measured)
    assert found.ways("dull", "map") == [Way("frozen", 0.01), Way("tuned", 0.1)]
    assert found.values("dull", "map", Way("frozen", 0.01)) == [0.0]


def test_what_is_about_other_images_is_left_out(found):
    fakewhere.write(
        paths.segmented("moved", 0) / "counts.parquet",
        ("protocol", "fraction", "row", "class", "intersection", "predicted", "actual"),
        [("tuned", 0.1, 3, 0, 1, 1, 1)],
    )
    fakewhere.write(
        paths.detected("moved", 0) / "detections.parquet",
        ("protocol", "fraction", "row", "label", "score", "left", "top", "right", "bottom"),
        [("tuned", 0.1, 3, 0, 0.5, 0.0, 0.0, 1.0, 1.0)],
    )
    assert found.ways("moved", "miou") == found.ways("moved", "map") == []
