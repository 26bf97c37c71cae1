"""Runs side by side: what differs in them, and whether their scores do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fakerun
import numpy as np
import pytest

from sslflow import cli, paths
from sslflow.commands.compare import compare
from sslflow.evaluation.intervals import crossed
from sslflow.reporting.card import CARD, IMAGES
from sslflow.runtime.files import read_csv, read_json, write_csv, write_json
from sslflow.stages import report

CLASSES = ("boot", "bag", "coat")
PARAMS = """
run: {methods: [simclr], seeds: [0, 1]}
report: {map_images: 20, queries: 1, neighbour_count: 2}
finetune: {fractions: [0.1, 0.01]}
methods: {simclr: {temperature: 0.2, projector: [256, 128]}, rotation: {secret: 1}}
data: {}
"""


def refuse(revision: str, files: list[Path], target: Path) -> None:
    raise ValueError(f"{revision}: neither a folder nor a git revision or experiment")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, reported."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("params.yaml").write_text(PARAMS)
        fakerun.whole(["simclr"], [0, 1], CLASSES, {"train": 60, "test": 30})
        report.main()
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The run, and a copy of it to be changed."""
    shutil.copytree(made / paths.ARTIFACTS, tmp_path / "b" / paths.ARTIFACTS)
    return made, tmp_path / "b"


def change(folder: Path, file: Path, with_what: Callable[[dict], object]) -> None:
    content = read_json(folder / file)
    with_what(content)
    write_json(folder / file, content)


def answer(folder: Path, seed: int, right: int) -> None:
    """The first so many test images are right by the linear probe, the others wrong."""
    file = folder / paths.predictions("simclr", seed)
    rows = read_csv(file)
    for place, row in enumerate(rows):
        other = next(name for name in CLASSES if name != row["actual"])
        row["predicted"] = row["actual"] if place < right else other
    write_csv(file, list(rows[0]), [list(row.values()) for row in rows])


def score(runs: tuple[Path, Path], row: str, metric: str) -> dict:
    content = json.loads(compare([str(one) for one in runs], refuse, as_json=True))
    return next(one for one in content["scores"] if (one["row"], one["metric"]) == (row, metric))


def test_a_run_is_like_itself(made: Path) -> None:
    said = compare([str(made), str(made / paths.ARTIFACTS)], refuse)
    assert "nothing differs in code, data, settings, versions and machine" in said
    assert "simclr, linear" in said
    assert "the same" in said
    assert "random weights, kNN" in said


def test_only_what_differs_is_listed(runs: tuple[Path, Path]) -> None:
    def other(card: dict) -> None:
        card["params"]["methods"]["simclr"]["temperature"] = 0.5
        card["params"]["methods"]["rotation"] = {"secret": 2}
        card["code"] = {"commit": "abc", "changed": True}
        card["machine"]["cores"] = 64

    change(runs[1], paths.REPORT / CARD, other)
    content = json.loads(compare([str(one) for one in runs], refuse, as_json=True))
    assert content["runs"] == [str(one) for one in runs]
    assert content["differences"]["methods.simclr.temperature"] == [0.2, 0.5]
    assert content["differences"]["code"][1] == "abc with changes"
    assert set(content["differences"]) == {"code", "methods.simclr.temperature", "machine cores"}
    said = compare([str(one) for one in runs], refuse)
    assert "abc with changes" in said
    assert "secret" not in said, "of a method that only one of them has run"


def test_the_difference_is_taken_in_pairs(runs: tuple[Path, Path]) -> None:
    first, second = runs
    shutil.copytree(first / paths.ARTIFACTS, second.parent / "c" / paths.ARTIFACTS)
    first = second.parent / "c"
    for seed, before, after in ((0, 10, 20), (1, 12, 24)):
        answer(first, seed, before)
        answer(second, seed, after)
    (gap,) = score((first, second), "simclr", "linear")["gaps"]
    right = [[float(before <= place < after) for place in range(30)] for before, after in ((10, 20), (12, 24))]
    expected = crossed(np.array(right), np.arange(30))
    assert gap == {
        "mean": pytest.approx(11 / 30),
        "low": pytest.approx(expected.low),
        "high": pytest.approx(expected.high),
        "sure": expected.sure,
        "seeds": 2,
        "note": "",
    }


def test_other_test_images_have_no_interval(runs: tuple[Path, Path]) -> None:
    rows = read_csv(runs[1] / paths.REPORT / IMAGES)
    rows[0]["sha256"] = "another"
    write_csv(runs[1] / paths.REPORT / IMAGES, list(rows[0]), [list(row.values()) for row in rows])
    found = score(runs, "simclr", "linear")
    assert found["gaps"] == [{"why": "other test images: 29 in common of 30 and 30"}]
    assert None not in found["means"]


def test_answers_that_are_gone_are_said(runs: tuple[Path, Path]) -> None:
    shutil.rmtree(runs[1] / paths.ARTIFACTS / "predictions")
    assert score(runs, "simclr", "linear")["gaps"] == [{"why": f"no answers of {runs[1]} on the disk"}]


def test_other_shares_of_labels_are_other_scores(runs: tuple[Path, Path]) -> None:
    for file in (runs[1] / paths.METRICS / "finetune").iterdir():
        change(runs[1], file.relative_to(runs[1]), lambda metrics: metrics.update(first_fraction=0.01))
    change(runs[1], paths.LEADERBOARD, lambda board: board["simclr"].pop("finetune_1pct"))
    assert score(runs, "simclr", "finetune_10pct")["means"][1] is None
    assert None not in score(runs, "simclr", "finetune_1pct")["means"]


def test_other_seeds_are_independent_and_test_images_in_pairs(runs: tuple[Path, Path]) -> None:
    first, second = runs[1].parent / "c", runs[1]
    shutil.copytree(runs[0] / paths.ARTIFACTS, first / paths.ARTIFACTS)
    change(second, paths.REPORT / CARD, lambda card: card.update(seeds=[7, 8]))
    for old, new in ((0, 7), (1, 8)):
        place = second / paths.predictions("simclr", old)
        place.rename(second / paths.predictions("simclr", new))
    for seed, right in ((0, 10), (1, 24)):
        answer(first, seed, right)
        answer(second, seed + 7, right)
    (gap,) = score((first, second), "simclr", "linear")["gaps"]
    assert (gap["mean"], gap["seeds"]) == (pytest.approx(0), 2)
    assert gap["high"] > 14 / 30, "in pairs by their order they would not differ at all"
    said = compare([str(first), str(second)], refuse)
    assert "B − A: no seed in common: seeds are taken for independent, only test images are in pairs" in said


def test_seeds_that_one_run_lacks_are_said(runs: tuple[Path, Path]) -> None:
    note = "over seeds in common, 1 of 2 and 1; means are over all of each run"
    assert note not in compare([str(one) for one in runs], refuse)
    change(runs[1], paths.REPORT / CARD, lambda card: card.update(seeds=[1]))
    change(runs[1], paths.LEADERBOARD, lambda board: board["simclr"]["linear"].update(n=1))
    (gap,) = score(runs, "simclr", "linear")["gaps"]
    assert (gap["seeds"], gap["note"]) == (1, note)
    assert compare([str(one) for one in runs], refuse).count(f"B − A: {note}") == 1


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (paths.ARTIFACTS, "not a run: expected a folder that holds artifacts/"),
        (paths.LEADERBOARD, "no scores yet: artifacts/leaderboard.json is missing; `dvc repro report`"),
        (paths.REPORT / CARD, "artifacts/report/run.json, which says what its scores rest on, is missing"),
    ],
)
def test_what_is_no_run_is_refused(runs: tuple[Path, Path], missing: Path, words: str) -> None:
    place = runs[1] / missing
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(ValueError, match="b: ") as error:
        compare([str(one) for one in runs], refuse)
    assert words in str(error.value)


@pytest.mark.parametrize("file", [paths.LEADERBOARD, paths.REPORT / CARD, paths.REPORT / IMAGES])
def test_a_broken_file_is_named(runs: tuple[Path, Path], file: Path) -> None:
    (runs[1] / file).write_text("{")
    with pytest.raises(ValueError, match=f"b: {file}"):
        compare([str(one) for one in runs], refuse)


def test_answers_about_images_that_the_report_does_not_know_are_refused(runs: tuple[Path, Path]) -> None:
    rows = read_csv(runs[1] / paths.REPORT / IMAGES)
    write_csv(runs[1] / paths.REPORT / IMAGES, list(rows[0]), [list(row.values()) for row in rows[:-1]])
    with pytest.raises(ValueError, match=r"b: the answers of .*, seed 0, are about other images .* report anew"):
        compare([str(one) for one in runs], refuse)


def test_an_empty_board_has_no_scores_yet(runs: tuple[Path, Path]) -> None:
    write_json(runs[1] / paths.LEADERBOARD, {})
    shutil.rmtree(runs[1] / paths.SCORES)
    with pytest.raises(ValueError, match="no scores yet"):
        compare([str(one) for one in runs], refuse)


@pytest.mark.parametrize(
    ("names", "words"), [([], "one run alone; name two or more"), (["nowhere"], "nowhere: neither a folder nor a git")]
)
def test_one_alone_and_no_run_at_all(
    made: Path,
    names: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setattr(sys, "argv", ["sslflow", "compare", ".", *names])
    assert cli.main() == 1
    assert words in capsys.readouterr().err


def test_a_revision_is_read_out_of_git_and_the_cache(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    author = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def call(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, env={**os.environ, **author})

    call("git", "init", "-q")
    call(sys.executable, "-m", "dvc", "init", "-q")
    call(sys.executable, "-m", "dvc", "add", "-q", "artifacts/predictions/simclr-0.csv", "artifacts/report")
    call("git", "add", "artifacts", ".dvc")
    call("git", "commit", "-q", "-m", "run")
    change(Path(), paths.REPORT / CARD, lambda card: card["params"].update(data={"image_size": 64}))
    monkeypatch.setattr(sys, "argv", ["sslflow", "compare", "HEAD", "."])
    assert cli.main() == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "data.image_size" in said
    assert "the same" in said


def test_masks_and_boxes_stand_side_by_side(runs: tuple[Path, Path]) -> None:
    for folder, miou in zip(runs, (0.5, 0.625), strict=True):
        write_json(folder / paths.SCORES / "where-simclr.json", {"miou": miou})
    try:
        assert score(runs, "where-simclr", "miou")["means"] == [0.5, 0.625]
        assert "where-simclr, miou" in compare([str(one) for one in runs], refuse)
    finally:
        (runs[0] / paths.SCORES / "where-simclr.json").unlink()
