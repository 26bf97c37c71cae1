"""What stages wrote of masks and boxes, as scores; files of other images count for nothing."""

from __future__ import annotations

import fakewhere
import numpy as np
import pyarrow.parquet as pq
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


def test_map_is_less_than_map_at_half_where_boxes_do_not_fit(found):
    way = Way("tuned", 0.1)
    pairs = zip(found.values("simclr", "map", way), found.values("simclr", "map50", way), strict=True)
    assert all(whole < half for whole, half in pairs)


def test_a_detector_that_finds_nothing_has_a_score_of_nothing(found):
    columns = ("protocol", "fraction", "row", "label", "score", "left", "top", "right", "bottom")
    row = int(found.rows("map")[0])
    lines = [("tuned", 0.1, row, 0, 0.9, 0.0, 0.0, 9.0, 9.0)]
    fakewhere.write(paths.detected("dull", 0) / "detections.parquet", columns, lines)
    measured = {"frozen_map_1pct": 0.0, "frozen_map50_1pct": 0.0, "tuned_map_10pct": 0.0, "things_1pct": 4.0}
    write_metrics(paths.metrics("detect", "dull-0"), measured)
    assert found.ways("dull", "map") == [Way("frozen", 0.01), Way("tuned", 0.1)]
    assert found.values("dull", "map", Way("frozen", 0.01)) == [0.0]


def test_a_seed_that_finds_nothing_keeps_its_place_in_means_and_pairs(found):
    ways = [("frozen", 0.1), ("tuned", 0.1)]
    fakewhere.nothing_detected("simclr", 2, found.rows("map"), ways)
    fakewhere.nothing_detected("scratch", 2, found.rows("map"), ways)
    for protocol, share in ways:
        way = Way(protocol, share)
        for metric in ("map", "map50"):
            values = found.values("simclr", metric, way)
            assert (len(values), values[2]) == (3, 0.0)
            assert found.over("simclr", metric, way).mean == pytest.approx(np.mean(values))
            assert found.pairs(("simclr", way), ("scratch", way), metric) == 3
            told, theirs = found.gap(("simclr", way), ("scratch", way), metric), found.values("scratch", metric, way)
            assert told.mean == pytest.approx(np.mean(np.subtract(values, theirs)))
    assert found.others("simclr", "map") == 0


def test_rows_are_compared_on_the_seeds_that_both_have(found):
    for folder in (paths.segmented, paths.detected):
        folder("scratch", 0).rename(folder("scratch", 2))
    way = Way("tuned", 0.1)
    for metric in ("miou", "map"):
        ours, theirs = (found.scores(name, metric, way) for name in ("simclr", "scratch"))
        assert (list(ours), list(theirs)) == ([0, 1], [1, 2])
        once = np.ones((1, len(found.rows(metric))))
        told = found.gap(("simclr", way), ("scratch", way), metric)
        assert told.mean == pytest.approx((ours[1](once) - theirs[1](once)).item())
        back = found.gap(("scratch", way), ("simclr", way), metric)
        assert back.mean == pytest.approx(-told.mean)
        assert found.pairs(("simclr", way), ("scratch", way), metric) == 1


def test_what_is_ignored_is_neither_wrong_nor_missed(found):
    things = found.dataset.truth.things(found.rows("map"))
    assert sum(one.ignored.sum() for one in things) >= 2
    fakewhere.detected("perfect", 0, things, found.rows("map"), {("tuned", 0.1): 1.0})
    assert found.values("perfect", "map50", Way("tuned", 0.1)) == pytest.approx([1.0])


@pytest.mark.parametrize("told", [True, False])
def test_what_is_about_a_part_of_the_test_images_is_left_out(found, told):
    rows = found.rows("miou")[:5]
    masks = found.dataset.truth.masks(rows).numpy()
    fakewhere.segmented("part", 0, masks, rows, {("tuned", 0.1): 0.5})
    file = paths.segmented("part", 0) / "counts.parquet"
    if not told:
        pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    assert (found.ways("part", "miou"), found.others("part", "miou")) == ([], 1)
    assert (found.seeds_of("part", "miou"), found.others("simclr", "miou")) == (0, 0)


def test_detections_in_a_part_of_the_test_images_are_left_out_where_the_file_tells(found):
    rows = found.rows("map")[:5]
    fakewhere.detected("part", 0, found.dataset.truth.things(rows), rows, {("tuned", 0.1): 0.5})
    assert (found.ways("part", "map"), found.others("part", "map")) == ([], 1)
    fakewhere.nothing_detected("dull", 0, rows, [("tuned", 0.1)])
    assert (found.ways("dull", "map"), found.others("dull", "map")) == ([], 1)


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
    assert found.others("moved", "miou") == found.others("moved", "map") == 1
