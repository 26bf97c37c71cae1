"""What is where: the section says what pretraining is worth for masks and boxes, and shows predictions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import fakewhere
import numpy as np
import pyarrow.parquet as pq
import pytest

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import VolumeFormat
from sslflow.data.splits import TEST
from sslflow.data.truth import Things
from sslflow.dense.average_precision import AT_MOST, Detections
from sslflow.evaluation.intervals import Interval
from sslflow.examination.where.found import Way
from sslflow.reporting.where.boxes import each_f1, outcome
from sslflow.reporting.where.localised import read_all
from sslflow.reporting.where.rows import Rows
from sslflow.reporting.where.section import section
from sslflow.reporting.where.words import weights
from sslflow.runtime.files import read_json, write_metrics
from sslflow.stages import report

RUN = {
    "methods": ["simclr", "rotation"],
    "segment": ["simclr", "rotation"],
    "segment_controls": ["random", "scratch", "lite0"],
    "detect": ["simclr"],
    "detect_controls": ["scratch", "lite0"],
}
RIGHT = {
    "simclr": {("linear", 0.1): 0.6, ("frozen", 0.1): 0.7, ("tuned", 0.01): 0.8, ("tuned", 0.1): 0.95},
    "rotation": {("linear", 0.1): 0.5, ("frozen", 0.1): 0.9, ("tuned", 0.01): 0.5, ("tuned", 0.1): 0.7},
    "random": {("linear", 0.1): 0.2, ("frozen", 0.1): 0.3},
    "scratch": {("tuned", 0.01): 0.3, ("tuned", 0.1): 0.5},
    "lite0": {("linear", 0.1): 0.8, ("frozen", 0.1): 0.6, ("tuned", 0.01): 0.85, ("tuned", 0.1): 0.97},
}


POINTING = {"simclr": 1.0, "lite0": 0.0}


def made(seeds: tuple[int, ...], run: dict = RUN, right: dict = RIGHT, **scenes) -> Rows:
    fakewhere.scenes(**scenes)
    dataset = Dataset()
    assert dataset.truth
    for seed in seeds:
        for name, shares in right.items():
            rows = dataset.annotated_rows(TEST, "mask")
            if dataset.truth.pixel_classes:
                fakewhere.segmented(name, seed, dataset.truth.masks(rows).numpy(), rows, shares)
            if dataset.truth.thing_classes and name in (*run["detect"], *run["detect_controls"]):
                rows = dataset.annotated_rows(TEST, "boxes")
                own = {way: share for way, share in shares.items() if way[0] != "linear"}
                things = dataset.truth.things(rows)
                fakewhere.detected(name, seed, things, rows, own, POINTING.get(name, 0.5))
    return Rows({"run": run}, seeds, dataset)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_table_stands_in_order_and_says_what_is_above_scratch():
    rows = made((0,))
    found = section(rows, 0)
    assert found
    assert found["heads"] == [("masks, mIoU", 3), ("boxes, mAP", 2), ("boxes, mAP50", 2)]
    assert found["absent"] == []
    (few, low), (many, high) = found["blocks"]
    assert (few, many) == ("1 % of the labels", "10 % of the labels")
    assert [line.title for line in high] == [
        "simclr",
        "rotation",
        "lite0, weights that exist",
        "random weights",
        "from scratch",
    ]
    assert [line.control for line in low] == [False, False, True, True]
    simclr, scratch = high[0].cells, high[-1].cells
    assert simclr[2].verdict == "better"
    assert simclr[2].gap[0].startswith("+")
    assert scratch[2].gap == ("", "")
    assert scratch[0] is None
    assert high[2].cells[2].top
    assert not scratch[2].top


def test_the_first_sentence_is_the_verdict_and_one_seed_is_said():
    found = section(made((0,)), 0)
    assert found
    verdict, *rest = found["said"]
    assert verdict.startswith("Pretrained here, the encoder beats training from scratch for masks")
    assert "masks with 1 % and 10 % of the labels" in verdict
    assert any(line.startswith("Masks: with 1 % of the labels simclr, fine-tuned, has ") for line in rest)
    assert any("frozen, rotation is above lite0; fine-tuned, lite0 is above rotation" in line for line in rest)
    assert rest[-1].startswith("One seed:")


def test_where_pretraining_is_worse_it_is_said():
    right = {**RIGHT, "scratch": {("tuned", 0.01): 0.95, ("tuned", 0.1): 1.0}, "simclr": RIGHT["rotation"]}
    found = section(made((0,), right=right), 0)
    assert found
    assert found["said"][0].startswith("Pretrained here, the encoder is worse than training from scratch")


def test_what_differs_by_chance_is_not_called_better():
    right = {**RIGHT, "simclr": RIGHT["scratch"], "rotation": RIGHT["scratch"]}
    found = section(made((0, 1), right=right), 0)
    assert found
    assert "not surely better than training from scratch" in found["said"][0]


def test_without_scratch_nothing_is_said_of_it():
    run = {**RUN, "segment_controls": ["random"], "detect_controls": ["lite0"]}
    found = section(made((0,), run), 0)
    assert found
    assert found["said"][0].startswith("Whether pretraining beats training from scratch can't be told")
    assert not found["compared"]


def test_masks_are_shown_from_the_best_to_the_worst_and_errors_are_counted():
    rows = made((0, 1))
    found = section(rows, 0)
    assert found
    masks = found["masks"]
    assert (masks["best"], masks["way"]) == ("lite0, weights that exist", "fine-tuned with 10 % of the labels")
    ((words, examples),) = masks["examples"][:1]
    assert words in ("Best", "From the best to the worst")
    assert [name for name, _ in examples[0].tiles] == ["image", "truth", "prediction", "errors"]
    assert masks["confusion"].classes == list(fakewhere.PIXELS)
    known = rows.found.counts("lite0", 0)[next(iter(rows.found.ways("lite0", "miou")))][..., 2].sum()
    assert masks["confusion"].counts.sum() == 2 * known
    assert [name for name, _ in masks["legend"]] == list(fakewhere.THINGS)


def test_boxes_alone_need_no_masks():
    run = {**RUN, "segment": [], "segment_controls": []}
    found = section(made((0,), run, pixels=()), 0)
    assert found
    assert found["masks"] is None
    assert found["heads"] == [("boxes, mAP", 2), ("boxes, mAP50", 2)]
    assert "masks" not in found["said"][0]
    look = found["boxes"]["look"]
    assert look.examples[0][1][0].caption.startswith(("1 of 1 found", "2 of 2 found"))
    assert 0.35 < look.score <= 1


def test_localisation_stands_beside_the_centre_and_a_random_point():
    rows = made((0,))
    found = section(rows, 0)
    assert found
    told = found["localised"]
    assert [title for title, *_ in told["lines"]] == ["simclr", "from scratch", "lite0, weights that exist"]
    centre, pixels = (float(told["rates"][kind]) for kind in ("centre", "pixels"))
    assert 0 < centre < pixels < 100
    simclr, _, lite0 = told["lines"]
    assert (float(simclr[2]), simclr[4][0][1]) == (100, "better")
    assert (float(lite0[2]), lite0[4][1][1]) == (0, "worse")
    for line in told["lines"]:
        for (gap, _), rate in zip(line[4], (centre, pixels), strict=True):
            assert gap.startswith(f"{float(line[2]) - rate + 0.0:+.1f} (".replace("-", "−"))
    assert told["images"] == fakewhere.COUNTS["test"] - 2
    assert len(told["pictures"]) == 8


def test_places_of_a_part_of_the_test_images_are_none_of_todays():
    found = made((0, 1)).found
    assert set(read_all(found, "simclr")) == {0, 1}
    file = paths.detected("simclr", 1) / "localised.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    assert set(read_all(found, "simclr")) == {0}


def test_rows_are_compared_with_scratch_of_the_same_share_of_labels():
    rows = made((0, 1))
    for fraction in (0.01, 0.1):
        lines = {line.title: line.cells for line in rows.lines(fraction)}
        for number, column in enumerate(rows.columns()):
            scratch = rows.found.values("scratch", column.metric, Way("tuned", fraction))
            ours = rows.found.values("simclr", column.metric, Way(column.protocol, fraction))
            cell = lines["simclr"][number]
            assert (cell is None) == (not ours)
            if cell:
                expected = f"{100 * (np.mean(ours) - np.mean(scratch)):+.1f}".replace("-", "−")
                assert cell.gap[0] == expected
    few, many = (rows.found.values("scratch", "miou", Way("tuned", fraction)) for fraction in (0.01, 0.1))
    assert np.mean(many) - np.mean(few) > 0.05


def test_a_gap_on_fewer_seeds_than_the_row_has_says_so():
    rows = made((0, 1))
    paths.segmented("scratch", 0).rename(paths.segmented("scratch", 2))
    rows = Rows({"run": RUN}, (0, 1, 2), rows.found.dataset)
    cells = {line.title: line.cells for line in rows.lines(0.1)}["simclr"]
    assert [cell.seeds for cell in cells if cell] == [*["1 of 2 seeds"] * 3, *[""] * 4]
    found = section(rows, 0)
    assert found
    assert any("; 1 of 2 seeds) above from scratch" in line for line in found["said"])


def test_what_is_about_other_images_is_said():
    rows = made((0, 1))
    part = rows.found.rows("miou")[:5]
    truth = rows.found.dataset.truth
    assert truth
    masks = truth.masks(part).numpy()
    fakewhere.segmented("simclr", 0, masks, part, RIGHT["simclr"])
    found = section(Rows({"run": RUN}, (0, 1), rows.found.dataset), 0)
    assert found
    assert found["absent"] == ["masks, simclr: 1 of 2 seeds, 1 made of other test images: left out"]


def test_from_scratch_is_said_to_be_another_network_than_that_of_weights_that_exist():
    begun = {"run": RUN, "start": {"weights": "random"}, "methods": {"simclr": {"start": {"weights": "lite0"}}}}
    rows = Rows(begun, (0,), made((0,)).found.dataset)
    found = section(rows, 0)
    assert found
    assert "simclr goes on from weights that exist: another network than from scratch." in found["said"][0]
    (said,) = (line for line in found["said"] if line.startswith("From scratch is the network of the setting encoder"))
    assert "; simclr (continued) and lite0 have the networks of their weights" in said
    assert found["other_network"] == said
    alone = {**RUN, "segment_controls": ["scratch"], "detect_controls": ["scratch"]}
    found = section(Rows({"run": alone}, (0,), rows.found.dataset), 0)
    assert found
    assert not found["other_network"]


def test_detections_are_right_or_wrong_as_average_precision_takes_them():
    things = [
        Things(
            np.array([[0, 0, 10, 10], [2, 0, 12, 10], [14, 14, 24, 24]], np.float32),
            np.zeros(3, np.int64),
            np.array([False, False, True]),
        )
    ]
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [15, 15, 20, 20], [12, 0, 22, 6]]
    columns = np.zeros(5, np.int64), np.zeros(5, np.int64), np.array([0.5, 0.9, 0.4, 0.8, 0.7], np.float32)
    found = outcome(things, Detections(*columns, np.array(boxes, np.float32)), 1)
    # The surest takes one of the two that it overlaps alike, the next the other; what is left is wrong.
    assert found.hit.tolist()[1] is True
    assert found.hit.sum() == 2
    assert found.counted.tolist() == [True, True, True, False, True]
    assert [one.tolist() for one in found.missed] == [[False, False, False]]
    # Two of four detections that count, and two of two things.
    assert each_f1(things, Detections(*columns, np.array(boxes, np.float32)), found) == pytest.approx([4 / 6])


def test_more_detections_of_a_class_than_average_precision_looks_at_count_neither_way():
    things = [Things(np.array([[0, 0, 9, 9]], np.float32), np.zeros(1, np.int64), np.array([False]))]
    count = AT_MOST + 1
    boxes = np.tile(np.array([[12, 12, 20, 20]], np.float32), (count, 1))
    boxes[0] = [0, 0, 9, 9]
    zeros = np.zeros(count, np.int64)
    found = outcome(things, Detections(zeros, zeros, np.linspace(0.1, 0.9, count), boxes), 1)
    assert not found.hit.any()
    assert found.counted.sum() == AT_MOST
    assert found.missed[0].tolist() == [True]


def test_images_are_chosen_and_captioned_without_what_is_ignored():
    found = section(made((0,), right={**RIGHT, "simclr": {("tuned", 0.1): 1.0}}), 0)
    assert found
    captions = [one.caption for _, examples in found["boxes"]["look"].examples for one in examples]
    assert len(captions) == fakewhere.COUNTS["test"] - 2
    assert {caption.split(" found")[0] for caption in captions} == {"1 of 1", "2 of 2"}
    assert {caption.split(", ")[1] for caption in captions} == {"0 wrong"}


def test_what_is_missing_is_said():
    run = {**RUN, "segment": ["simclr", "rotation", "byol"]}
    rows = made((0,), run)
    rows = Rows({"run": run}, (0, 1), rows.found.dataset)
    found = section(rows, 0)
    assert found
    assert "masks, byol: 0 of 2 seeds" in found["absent"]
    assert "boxes, from scratch: 1 of 2 seeds" in found["absent"]


def test_nothing_made_is_no_section():
    fakewhere.scenes()
    assert section(Rows({"run": RUN}, [0], Dataset()), 0) is None
    assert not (paths.ARTIFACTS / "segmented").exists()


PARAMS = """
run:
  methods: [simclr, rotation]
  segment: [simclr, rotation]
  segment_controls: [random, scratch, lite0]
  detect: [simclr]
  detect_controls: [scratch, lite0]
  seeds: [0]
  launch: python -m
starts: {lite0: {weights: random}}
methods: {simclr: {}, rotation: {}}
report: {}
"""


def test_the_page_begins_with_it_where_images_have_no_class_and_names_stay_text():
    made((0,))
    write_metrics(paths.metrics("prepare"), {"cut_away": 3, "annotations_mended": 0})
    write_metrics(
        paths.metrics("segment", "simclr-0"), {"tuned_miou_1pct": 0.5, "tuned_miou_10pct": 0.7, "seconds": 9.0}
    )
    write_metrics(paths.metrics("segment", "random-0"), {"frozen_miou_10pct": 0.2})
    write_metrics(paths.metrics("detect", "simclr-0"), {"tuned_map_10pct": 0.25, "tuned_map50_10pct": 0.5})
    (paths.ARTIFACTS.parent / "params.yaml").write_text(PARAMS)
    report.main()
    page = (paths.REPORT / "index.html").read_text()
    text = " ".join(page.split("<script")[0].split())
    assert "<h1>Pretrained here, the encoder beats training from scratch" in text
    assert text.count("Pretrained here, the encoder beats") == 1
    assert '<a href="#where">What is where</a>' in text
    assert '<a href="#leaderboard">' not in text
    assert "data.probe_source" not in text
    assert "12 images to train on and 10 to test on have masks, of 3 classes of pixels" in text
    assert "1 of the images show nothing" in text
    assert "3 boxes were cut away" in text
    assert "annotations were mended" not in text
    assert "&lt;b&gt;square&lt;/b&gt;" in text
    assert "<b>square</b>" not in text
    assert read_json(paths.SCORES / "where-simclr.json") == {"box_map": 0.25, "miou": 0.7}
    assert not (paths.SCORES / "where-random.json").exists()


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ((0.1, 0.1), "are better still, everywhere: take them"),
        ((0.1, None), "are better still, for masks with 1 % of the labels: take them"),
        ((0.0, None), "are nowhere surely better, compared for masks with 1 % of the labels."),
        ((-0.1, None), "are worse, compared for masks with 1 % of the labels: pretraining on one's own blocks pays."),
        ((-0.1, -0.1), "are worse: pretraining on one's own blocks pays."),
    ],
)
def test_weights_are_better_everywhere_only_where_all_places_are_compared(
    gaps: tuple[float | None, ...], said: str
) -> None:
    places: list[Any] = [("miou", 0.01), ("miou", 0.1)]
    by_share = dict(zip((0.01, 0.1), gaps, strict=True))
    rows: Any = SimpleNamespace(
        tasks={"miou": "masks"},
        found=SimpleNamespace(volumes=True, dataset=SimpleNamespace(format=VolumeFormat(1, 8, (0.5,), (0.2,)))),
        starts=lambda metric: ["lite0"],
        best_method=lambda metric, way: "simclr",
        over=lambda name, metric, way: Interval(0.5, 0.4, 0.6),
        gap=lambda one, other, metric: (
            None if (gap := by_share[one[1].fraction]) is None else Interval(gap, gap - 0.05, gap + 0.05)
        ),
    )
    assert said in weights(rows, places)
