from __future__ import annotations

import csv
import json
import statistics

import numpy as np
import pytest
from fakerun import metrics

from sslflow import paths
from sslflow.reporting.answers import Answers, fraction_name
from sslflow.reporting.leaderboard import (
    best,
    collect,
    compared,
    duration,
    fractions_of,
    leaderboard_text,
    main_metrics,
    metric_names,
    order,
    percent,
    row_title,
    seeds_of,
    shown,
    title,
    write_board,
)
from sslflow.reporting.story import headline, remarks
from sslflow.runtime.files import write_csv
from sslflow.settings.sections import Run

FRACTIONS = (0.1, 0.01)


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, linear in ((0, 0.80), (1, 0.84)):
        metrics("probe", "simclr", seed, linear=linear, knn=0.7)
        metrics("probe", "random", seed, linear=0.60, knn=0.75)
        metrics("pretrain", "simclr", seed, rankme=40.0, seconds=61.0)
    metrics("finetune", "simclr", 0, finetune_10pct=0.9, finetune_1pct=0.5)
    metrics("finetune", "scratch", 0, finetune_10pct=0.8, finetune_1pct=0.4)


def test_mean_spread_and_count_over_the_seeds(two_runs):
    board = collect(["simclr"], [0, 1], FRACTIONS)
    assert set(board) == {"simclr", "random", "scratch"}  # pixels were never probed
    assert board["simclr"]["linear"] == {
        "mean": pytest.approx(0.82),
        "std": pytest.approx(statistics.stdev([0.80, 0.84])),
        "n": 2,
    }
    assert board["simclr"]["finetune"] == {"mean": 0.9, "std": 0.0, "n": 1}
    assert board["scratch"]["finetune_1pct"]["mean"] == 0.4
    assert board["simclr"]["pretrain_seconds"]["mean"] == 61.0
    assert "finetune_10pct" not in board["simclr"]


def test_the_first_fraction_is_the_main_one_whatever_its_size(two_runs):
    board = collect(["simclr"], [0], (0.01, 0.1))
    assert board["simclr"]["finetune"]["mean"] == 0.5
    assert board["simclr"]["finetune_10pct"]["mean"] == 0.9


def test_fractions_are_found_where_no_setting_names_them(two_runs):
    metrics("finetune", "stale", 0, finetune_50pct=0.9)
    assert fractions_of(["simclr"], [0, 1]) == [0.1, 0.01]


def test_other_methods_and_seeds_on_the_disk_are_not_read(two_runs):
    metrics("probe", "rotation", 0, linear=0.99)
    metrics("probe", "simclr", 7, linear=0.99)
    board = collect(["simclr"], [0, 1], FRACTIONS)
    assert "rotation" not in board
    assert board["simclr"]["linear"]["n"] == 2


def test_rows_are_ranked_and_controls_come_last(two_runs):
    metrics("probe", "rotation", 0, linear=0.9, knn=0.1)
    board = compared(collect(["simclr", "rotation"], [0, 1], FRACTIONS), Answers([0, 1], np.arange(0)), {})
    assert order(board) == ["rotation", "simclr", "random", "scratch"]
    assert best(board, "knn") == {"random"}, "a control that wins is marked: it must not be hidden"
    assert best(board, "rankme") == set()


def test_files(two_runs):
    board = collect(["simclr"], [0, 1], FRACTIONS)
    write_board(board)
    assert json.loads(paths.LEADERBOARD.read_text()) == board
    with paths.LEADERBOARD.with_suffix(".csv").open(newline="") as handle:
        rows = {row["name"]: row for row in csv.DictReader(handle)}
    assert float(rows["simclr"]["linear_mean"]) == pytest.approx(0.82)
    assert rows["random"]["finetune_mean"] == ""


def test_text_is_aligned_and_says_what_is_what(two_runs):
    text = leaderboard_text(compared(collect(["simclr"], [0, 1], FRACTIONS), Answers([0, 1], np.arange(0)), {}))
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("simclr"))
    assert "82.0 ± 2.8*" in row
    assert "1 min 01 s" in row
    header, control = lines[1], next(line for line in lines if line.startswith("random weights"))
    assert len(header) == len(row) == len(control)
    assert header.index("linear") + len("linear") == row.index("82.0 ± 2.8") + len("82.0 ± 2.8")
    assert lines.index(row) < lines.index(control)


def test_pixels_that_were_reduced_are_called_so(two_runs):
    metrics("probe", "pixels", 0, linear=0.5, knn=0.4)
    board = collect(["simclr"], [0, 1], FRACTIONS)
    assert row_title(board, "pixels") == "raw pixels"
    for seed in (0, 1):
        metrics("probe", "pixels", seed, linear=0.5, knn=0.4, side=32)
    board = collect(["simclr"], [0, 1], FRACTIONS)
    assert row_title(board, "pixels") == "pixels (32 × 32)"
    assert "pixels (32 × 32)  " in leaderboard_text(board)
    assert "side" not in leaderboard_text(board)
    assert headline(board, ["simclr"], True).endswith("32.0 points above pixels (32 × 32).")
    assert [row_title(board, name) for name in ("simclr", "random")] == ["simclr", "random weights"]


def test_without_labels_there_are_no_accuracies_and_the_text_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics("probe", "simclr", 0)
    metrics("pretrain", "simclr", 0, rankme=12.5, seconds=3.0)
    board = collect(["simclr"], [0], FRACTIONS)
    assert board == {
        "simclr": {
            "rankme": {"mean": 12.5, "std": 0.0, "n": 1},
            "pretrain_seconds": {"mean": 3.0, "std": 0.0, "n": 1},
        }
    }
    assert "without labels" in leaderboard_text(board)
    assert "%" not in leaderboard_text(board)


def test_what_dvc_shows_is_a_file_for_each_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = {"mean": 0.12345, "std": 0.0, "n": 1}
    rank, seconds = {"mean": 40.0, "std": 0.0, "n": 1}, {"mean": 9.0, "std": 0.0, "n": 1}
    write_board({"simclr": {"linear": one, "rankme": rank, "pretrain_seconds": seconds}, "random": {"linear": one}})
    assert scores() == {"simclr": {"linear": 0.123}, "random": {"linear": 0.123}}


def test_without_labels_dvc_shows_rankme_and_without_anything_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_board({})
    assert scores() == {}
    assert paths.SCORES.is_dir()
    rank, seconds = {"mean": 40.0, "std": 0.0, "n": 1}, {"mean": 9.0, "std": 0.0, "n": 1}
    write_board({"simclr": {"rankme": rank, "pretrain_seconds": seconds}})
    assert scores() == {"simclr": {"rankme": 40.0}}


def test_energy_has_columns_in_the_table_of_numbers_and_none_in_the_leaderboard(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics("probe", "simclr", 0, linear=0.5)
    metrics("pretrain", "simclr", 0, energy_wh=5.0, energy_gpu_wh=4.0)
    board = collect(["simclr"], [0])
    write_board(board)
    assert metric_names(board) == ["linear", "pretrain_wh", "pretrain_gpu_wh"]
    assert main_metrics(board) == ["linear"]
    assert (title("pretrain_wh"), shown("pretrain_wh", board["simclr"]["pretrain_wh"])) == ("pretraining, Wh", "5.0")
    with paths.LEADERBOARD.with_suffix(".csv").open(newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert (row["pretrain_wh_mean"], row["pretrain_gpu_wh_mean"]) == ("5.0", "4.0")
    assert scores() == {"simclr": {"linear": 0.5}}


def scores() -> dict[str, dict[str, float]]:
    return {file.stem: json.loads(file.read_text()) for file in paths.SCORES.glob("*.json")}


def test_nothing_measured():
    assert "nothing has been measured" in leaderboard_text({})


@pytest.mark.parametrize(
    ("methods", "seeds", "word"),
    [((), (0,), "methods is empty"), (("simclr",), (), "seeds is empty"), (("simclr", "simclr"), (0,), "twice")],
)
def test_run_section(methods, seeds, word):
    with pytest.raises(ValueError, match=word):
        Run(methods=methods, seeds=seeds)


def test_words():
    assert [fraction_name(f) for f in (0.1, 0.01, 0.07, 0.005, 1.0)] == [
        "finetune_10pct",
        "finetune_1pct",
        "finetune_7pct",
        "finetune_0.5pct",
        "finetune_100pct",
    ]
    assert [duration(s) for s in (0.44, 42, 59.7, 192, 7500)] == [
        "0.4 s",
        "42 s",
        "1 min 00 s",
        "3 min 12 s",
        "2 h 05 min",
    ]


@pytest.mark.parametrize(("seeds", "words"), [(1, "with one seed"), (2, "which tell little"), (3, "among themselves")])
def test_a_lead_is_said_as_surely_as_the_seeds_allow(seeds, words):
    board = {
        name: {"linear": {"mean": mean, "std": 0.001, "n": seeds}} for name, mean in (("simclr", 0.8), ("byol", 0.7))
    }
    assert any(words in sentence for sentence in remarks(board, ["simclr", "byol"], (), True))
    board["byol"]["linear"]["n"] = 1
    assert any("with one seed" in sentence for sentence in remarks(board, ["simclr", "byol"], (), True))


def test_a_row_says_over_how_many_seeds_each_of_its_numbers_was_measured():
    row = {"linear": {"mean": 0.5, "std": 0.0, "n": 3}, "knn": {"mean": 0.5, "std": 0.0, "n": 3}}
    assert seeds_of(row) == "3"
    assert seeds_of({**row, "finetune": {"mean": 0.5, "std": 0.0, "n": 1}}) == "1–3"
    assert leaderboard_text({"simclr": {**row, "finetune": {"mean": 0.5, "std": 0.0, "n": 2}}}).count("2–3") == 1


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100.0"), (0.9999, "99.9"), (0.99949, "99.9"), (0.5, "50.0"), (0.0001, "0.1"), (0.0, "0.0")],
)
def test_nearly_all_is_not_said_to_be_all(share, said):
    assert percent(share) == said


def test_shares_are_those_that_the_metrics_name_the_main_one_first(two_runs):
    metrics("finetune", "simclr", 1, finetune_7pct=0.9, finetune_67pct=0.5, first_fraction=0.07)
    assert fractions_of(["simclr"], [1]) == [0.07, 0.67]
    assert fractions_of(["simclr"], [0]) == [0.1, 0.01]


IMAGES = 400


@pytest.mark.parametrize(
    ("random", "pixels", "words"),
    [
        (0.737, 0.730, "5.0 points above lite0, frozen as it came and 2.0 points above random weights."),
        (0.700, 0.770, "5.0 points above lite0, frozen as it came and 1.3 points below raw pixels."),
        (0.600, 0.700, "5.0 points above lite0, frozen as it came."),
    ],
)
def test_weights_that_exist_are_not_all_there_is_to_beat_where_less_is_better(random, pixels, words):
    means = {"rotation": 0.757, "start lite0": 0.707, "random": random, "pixels": pixels}
    board = {name: {"linear": {"mean": mean, "std": 0.0, "n": 1.0}} for name, mean in means.items()}
    assert headline(board, ["rotation"], True).endswith(f"test images, {words}")


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """Two seeds: simclr is right on 60 % of the test images, rotation on one more in a hundred, random weights on 40 %
    of those that simclr knows."""
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        right = np.arange(IMAGES) % 5 < 3
        one_more = right | (np.arange(IMAGES) % 100 == 3)
        for name, own in (("simclr", right), ("rotation", one_more), ("random", right & (np.arange(IMAGES) % 5 < 2))):
            answer(paths.predictions(name, seed), {"predicted": own, "neighbours": own})
            metrics("probe", name, seed, linear=own.mean(), knn=own.mean())
        for name, own in (("simclr", right), ("scratch", ~right)):
            answer(paths.tuned(name, seed), {"finetune_10pct": own, "finetune_1pct": ~own})
            metrics("finetune", name, seed, finetune_10pct=own.mean(), finetune_1pct=(~own).mean())
    return Answers([0, 1], np.arange(IMAGES), FRACTIONS)


def answer(file, columns):
    words = {name: np.where(right, "cat", "dog") for name, right in columns.items()}
    rows = zip(range(IMAGES), ["cat"] * IMAGES, *words.values(), strict=True)
    write_csv(file, ["row", "actual", *words], rows)


def test_distances_are_taken_image_by_image(answered):
    gap = answered.gap("simclr", "random", "linear")
    assert gap.mean == pytest.approx(0.2)
    apart = answered.over("simclr", "linear")
    assert 0.02 < gap.high - gap.low < apart.high - apart.low
    assert answered.gap("simclr", "scratch", "finetune").mean == pytest.approx(0.2)
    assert answered.gap("simclr", "scratch", "finetune_1pct").mean == pytest.approx(-0.2)
    assert answered.gap("simclr", "absent", "linear") is None
    alike = Answers([0, 1], np.arange(IMAGES) // 100, FRACTIONS).gap("rotation", "simclr", "linear")
    assert alike
    assert alike.mean == pytest.approx(0.01)


def test_retrieval_is_compared_query_by_query_as_answers_are(answered):
    for name, shift in (("simclr", 0.2), ("random", 0.1)):
        for seed in (0, 1):
            values = [f"{shift + 0.6 * (row % 2) + 0.001 * (row % 7):.6g}" for row in range(IMAGES)]
            names = ["row", "actual", "predicted", "neighbours", "map"]
            columns = zip(range(IMAGES), *[["cat"] * IMAGES] * 3, values, strict=True)
            write_csv(paths.predictions(name, seed), names, columns)
            metrics("probe", name, seed, linear=1.0, knn=1.0, map=float(np.mean(list(map(float, values)))), recall1=0.5)
    answered = Answers([0, 1], np.arange(IMAGES), FRACTIONS)
    board = compared(collect(["simclr"], [0, 1], FRACTIONS), answered, {})
    cell = board["simclr"]["map"]
    assert cell["low"] < cell["mean"] < cell["high"]
    assert cell["mean"] == pytest.approx(0.503, abs=1e-4)
    assert (cell["above_low"], cell["above"], cell["above_high"]) == pytest.approx((0.1, 0.1, 0.1), abs=1e-6)
    assert cell["top"] == 1
    assert "mAP" in leaderboard_text(board)
    assert "R@1" not in leaderboard_text(board), "it stands aside"
    assert "recall1" in metric_names(board)


def test_seeds_that_one_row_lacks_are_left_out_and_other_test_images_are_not_compared(answered):
    paths.predictions("random", 1).unlink()
    assert answered.gap("simclr", "random", "linear").mean == pytest.approx(0.2)
    other = Answers([0, 1], np.arange(IMAGES + 1), FRACTIONS)
    lines = paths.predictions("random", 0).read_text().splitlines(keepends=True)
    paths.predictions("random", 0).write_text("".join(lines[:-1]) + "400,cat,cat,cat\n")
    assert other.gap("simclr", "random", "linear") is None


def test_a_cell_knows_its_interval_and_that_of_its_distance_to_the_control(answered):
    board = compared(collect(["simclr", "rotation"], [0, 1], FRACTIONS), answered, {"simclr": "random"})
    cell = board["simclr"]["linear"]
    assert cell["low"] < 0.6 < cell["high"]
    assert cell["above_low"] < cell["above"] == pytest.approx(0.2)
    assert "above" not in board["random"]["linear"]
    assert board["simclr"]["finetune"]["above"] == pytest.approx(0.2)
    assert "above" not in compared(collect(["simclr"], [0, 1]), answered, {"simclr": "lite0"})["simclr"]["linear"]


def test_what_may_differ_by_chance_alone_is_marked_as_best_too_and_told_so(answered):
    board = collect(["simclr", "rotation"], [0, 1], FRACTIONS)
    of_one_source = np.where(np.arange(IMAGES) % 100 == 3, 0, np.arange(IMAGES) % 100)
    few = Answers([0, 1], of_one_source, FRACTIONS)
    assert best(compared(board, answered, {}), "linear") == {"rotation"}, "four images more, and never one less"
    assert best(compared(board, few, {}), "linear") == {"rotation", "simclr"}, "one group of images has them all"
    first = headline(board, ["simclr", "rotation"], True, answered)
    assert "of the test images" in first
    assert headline(board, ["simclr", "rotation"], True, answered, "blocks") == first.replace("images", "blocks")
    assert "21.0 points (17.0 to 25.0) above random weights" in first
    assert any(
        "rotation stands 1.0 points (0.0 to 2.0) above simclr" in one
        for one in remarks(board, ["simclr", "rotation"], FRACTIONS, True, answered)
    )
