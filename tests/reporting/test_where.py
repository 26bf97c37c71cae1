"""What is where: the section says what pretraining is worth for masks and boxes, and shows predictions."""

from __future__ import annotations

import fakewhere
import pytest

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.reporting.where.rows import Rows
from sslflow.reporting.where.section import section
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
                fakewhere.detected(name, seed, dataset.truth.things(rows), rows, own)
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
    assert look.examples[0][1][0].caption.startswith("1 of 1 found") or look.examples[0][1][0].caption.startswith(
        "2 of 2"
    )
    assert 0.35 < look.score <= 1


def test_localisation_stands_beside_the_centre_and_a_random_point():
    rows = made((0,))
    found = section(rows, 0)
    assert found
    told = found["localised"]
    assert [title for title, *_ in told["lines"]] == ["simclr", "from scratch", "lite0, weights that exist"]
    assert {line[2] for line in told["lines"]} == {told["rates"]["centre"]}
    assert {line[4][0][1] for line in told["lines"]} == {"may be chance"}
    assert told["images"] == fakewhere.COUNTS["test"] - 1
    assert float(told["rates"]["pixels"]) + float(told["rates"]["centre"]) == pytest.approx(100)
    assert len(told["pictures"]) == 8


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
