"""The verdict on a run: thresholds on curves made up, and real runs, healthy and sick."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable

import pytest
import torch
from PIL import Image

from sslflow import paths
from sslflow.judging.verdict import Finding, findings
from sslflow.reporting.curves import read_curve
from sslflow.runtime.files import read_json
from sslflow.settings.params import load
from sslflow.stages import inspect, pretrain
from sslflow.training.method import Choices
from tests.conftest import RECIPE
from tests.make_curves import CURVES, HEALTHY, SICK, Row

# Curves made up. Each is a healthy one but for what its test changes.


def curve(rows: int = 20, /, **columns: Callable[[float], float]) -> list[dict[str, float]]:
    """Rows from step 0 to 10 * `rows`; each column a function of the share of the run that is done."""
    healthy: dict[str, Callable[[float], float]] = {
        "loss": lambda t: 2 + 4 * math.exp(-8 * t),
        "feature_std": lambda t: 0.55,
        "rankme": lambda t: 40 - 10 * t,
        "alpha_req": lambda t: 1.0,
        "projection_std": lambda t: 0.8,
        "projection_rankme": lambda t: 80 - 50 * t,
        "alignment": lambda t: 0.5 - 0.2 * t,
        "uniformity": lambda t: -1.2 - 0.3 * t,
    }
    shares = [number / rows for number in range(rows + 1)]
    return [{"step": 10.0 * rows * t, **{name: f(t) for name, f in (healthy | columns).items()}} for t in shares]


def half_way(start: float, end: float) -> Callable[[float], float]:
    """A column that has come from its start to its end when half the run is done."""
    return lambda t: start + (end - start) * min(1.0, 2 * t)


def kinds(rows: list[dict[str, float]], choices: Choices | None = None, steps: int | None = None) -> list[str]:
    return [one.kind for one in findings(rows, choices, int(rows[-1]["step"]) if steps is None else steps, "images")]


K = Choices(1024, "prototypes")
LN_K = math.log(1024)


def test_a_healthy_curve_is_called_healthy_with_its_numbers():
    (said,) = findings(curve(), K, 200, "images")
    assert (said.kind, said.sick, said.advice) == ("healthy", False, "")
    for words in (
        "from 6 to 2.0",
        "(chance level: ln 1024 = 6.931, for 1024 prototypes)",
        "30.0 directions (RankMe), 40.0 at the start",
        "at 0.50 of",
    ):
        assert words in said.words


@pytest.mark.parametrize(
    ("loss", "running", "over"),
    [
        (lambda t: LN_K, True, True),
        (lambda t: LN_K + 0.06 * math.sin(100 * t), True, True),  # scatters around it
        (lambda t: LN_K + 0.5 * math.exp(-20 * t), True, True),  # has come down to it
        (lambda t: 0.997 * LN_K + 0.06 * math.sin(100 * t), True, True),  # so little below that it may be noise
        (lambda t: LN_K + 0.1 - 0.3 * t**8, False, False),  # steadily falling below it in the last rows
        (lambda t: LN_K * (1.5 - t / 2), False, True),  # reaches it in its last row
        (lambda t: LN_K * (1.3 - t / 4), False, True),  # ends above, though it has always fallen
        (lambda t: LN_K * (1.05 + 0.1 * math.exp(-20 * t)), False, True),
        (lambda t: LN_K * (1.3 - t / 3), False, False),  # passes it on its way
        (lambda t: LN_K * (0.98 + 0.1 * math.exp(-20 * t)), False, False),
        (lambda t: LN_K * (0.992 + 0.1 * math.exp(-20 * t)), False, False),  # far more than noise
    ],
)
def test_a_loss_that_does_not_come_below_chance_level(loss, running, over):
    rows = curve(loss=loss)
    assert ("chance" in kinds(rows[:-1], K, 200)) == running
    assert ("chance" in kinds(rows, K)) == over
    assert "chance" not in kinds(rows)


def test_a_little_below_the_log_of_many_keys_is_much():
    many = math.log(65_536)
    assert kinds(curve(loss=lambda t: many * (0.992 + 0.02 * math.exp(-20 * t))), Choices(65_536, "keys")) == [
        "healthy"
    ]


def test_the_number_and_what_is_chosen_among_are_named():
    (first, *_) = findings(curve(loss=lambda t: LN_K), K, 200, "images")
    assert (
        "The same answer for all passages does as well"
        in findings(curve(loss=lambda t: LN_K), K, 200, "passages")[0].words
    )
    assert "ln 1024 = 6.931" in first.words
    assert "1024 prototypes" in first.words


def test_a_loss_that_falls_in_the_end_is_not_at_chance_level_any_more():
    late = curve(loss=lambda t: LN_K if t < 0.6 else LN_K - 5 * (t - 0.6))
    assert kinds(late[:11], K, 200) == ["chance"]
    assert "chance" not in kinds(late, K)


def test_what_happens_in_the_last_rows_counts():
    assert kinds(curve(loss=lambda t: 6.5 - 4 * t if t < 0.95 else LN_K), K) == ["chance"]
    assert kinds(curve(loss=lambda t: 6 - 4 * t if t < 1 else 12.0)) == ["diverged"]
    assert kinds(curve(rankme=lambda t: 40 if t < 1 else 1.0)) == ["constant"]
    assert kinds(curve(feature_std=lambda t: 0.5 if t < 1 else 0.0)) == ["constant"]
    assert kinds(curve(projection_rankme=lambda t: 40 if t < 1 else 1.0)) == ["collapse"]
    # A run that has got well is well.
    assert kinds(curve(rankme=lambda t: 1.0 if 0.5 < t < 0.9 else 40.0)) == ["healthy"]


def test_words_are_about_the_features_that_are_kept():
    (found,) = findings(curve(rankme=lambda t: 41.7 if t < 0.92 else 1.0), None, 200, "images")
    assert "the features use 1.0 directions (RankMe), 41.7 at the start" in found.words


# Answers of which some are more likely: two classes, one of them with three quarters of the images.

LIKELY = Choices(2, "classes")
ENTROPY = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))


def of_labels(loss: Callable[[float], float], accuracy: Callable[[float], float]) -> list[Row]:
    """Losses and accuracies less and more than those of the best constant answer, by what the functions say."""

    def scatter(t: float) -> float:
        return 0.05 * math.sin(100 * t)

    return curve(
        loss=lambda t: ENTROPY + scatter(t) - loss(t),
        chance_loss=lambda t: ENTROPY + scatter(t),
        accuracy=lambda t: 0.75 - scatter(t) + accuracy(t),
        chance_accuracy=lambda t: 0.75 - scatter(t),
    )


@pytest.mark.parametrize(
    ("loss", "accuracy", "kind"),
    [
        (lambda t: -0.2 + 0.2 * min(1, 3 * t), lambda t: 0.0, "chance"),  # from ln 2 to the entropy of the labels
        (lambda t: -0.2 + 0.204 * min(1, 3 * t), lambda t: 0.006, "chance"),  # a few learned by heart
        (lambda t: -0.2 + 0.3 * min(1, 3 * t), lambda t: 0.0, "healthy"),  # surer of some, though none is right now
        (lambda t: -0.2 + 0.4 * min(1, 3 * t), lambda t: 0.15, "healthy"),
        (lambda t: -0.2 + 0.1 * min(1, 3 * t), lambda t: 0.15, "healthy"),  # too sure, but right
    ],
)
def test_the_best_constant_answer_is_the_bar(loss, accuracy, kind):
    (found,) = findings(of_labels(loss, accuracy), LIKELY, 200, "images")
    assert found.kind == kind


def test_words_name_the_best_constant_answer():
    (found,) = findings(of_labels(lambda t: 0.2 * min(1, 3 * t) - 0.2, lambda t: 0.0), LIKELY, 200, "images")
    numbers = re.search(r"chance level: (\S+)\), the accuracy (\S+) % \(chance level: (\S+) %\)", found.words)
    assert numbers, found.words
    loss, accuracy, chance = map(float, numbers.groups())
    assert loss == pytest.approx(ENTROPY, abs=0.06)
    assert accuracy == chance == pytest.approx(75, abs=6)


def test_accuracy_counts_where_answers_are_equally_likely():
    above: dict[str, Callable[[float], float]] = {"loss": lambda t: 1.6 + 0.2 * math.exp(-9 * t)}
    assert kinds(curve(**above, accuracy=lambda t: 0.25), Choices(4, "turns")) == ["chance"]
    assert kinds(curve(**above, accuracy=lambda t: 0.25 + 0.2 * t), Choices(4, "turns")) == ["healthy"]


def test_without_labels_to_choose_among_the_bar_may_be_known_too():
    columns: dict[str, Callable[[float], float]] = {"loss": lambda t: 0.5 + 0.9 * math.exp(-9 * t)}
    assert kinds(curve(**columns, chance_loss=lambda t: 0.5)) == ["chance"]
    assert kinds(curve(**columns, chance_loss=lambda t: 0.6)) == ["healthy"]


def test_a_loss_that_never_moves():
    def noisy(t: float) -> float:
        return 0.3 * math.sin(1e4 * t * t)

    assert kinds(curve(loss=lambda t: 6.0)) == ["flat"]
    assert kinds(curve(loss=lambda t: 6.0), K) == ["flat"]
    assert kinds(curve(loss=lambda t: 6 + noisy(t))) == ["flat"]
    assert kinds(curve(loss=lambda t: 6 - 0.1 * t + noisy(t))) == ["flat"]
    assert kinds(curve(loss=lambda t: 6 - 1.5 * min(1, 4 * t) + noisy(t))) == ["healthy"]
    assert kinds(curve(loss=lambda t: 6 - 0.1 * t)) == ["healthy"]
    # Of a run that still runs it is not said, nor where more answers are right than by chance.
    assert kinds(curve(loss=lambda t: 6.0)[:-1], steps=200) == []
    assert kinds(curve(loss=lambda t: 6.0, accuracy=lambda t: 0.4), K) == ["healthy"]


@pytest.mark.parametrize("column", ["loss", "rankme", "alignment"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite(column, value):
    for late in (0.05, 0.5, 1.0):
        rows = curve(**{column: lambda t, late=late: value if t >= late else 6 - t})
        (found,) = findings(rows, K, 200, "images")
        assert (found.kind, found.sick) == ("diverged", True)
        assert f"from step {200 * late:.0f} on not finite are {column}." in found.words
        assert kinds(rows[:-1], K, 200) == (["diverged"] if late < 1 else [])


def test_what_does_not_move_has_not_learned_wherever_its_loss_is():
    still = {"rankme": lambda t: 40 + t / 4, "uniformity": lambda t: -1.2}
    for loss in (lambda t: 6 - t / 10, lambda t: 6 - 5 * t, lambda t: -0.8 * t):
        assert kinds(curve(loss=loss, **still)) == ["unchanged"]
    # A method with a teacher may learn while its loss stays nearly where it is.
    assert kinds(curve(loss=lambda t: 6 - t / 10)) == ["healthy"]


def test_a_loss_that_has_run_away_diverged():
    assert kinds(curve(loss=lambda t: 6 + 6 * t)) == ["diverged"]
    assert kinds(curve(loss=lambda t: 6 + 2 * t), K) == ["diverged"]  # worse than a guess
    assert kinds(curve(loss=lambda t: 6 + 2 * t)) == ["healthy"]
    assert kinds(curve(loss=lambda t: -0.8 + 0.5 * t)) == ["healthy"]


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"feature_std": half_way(0.55, 0.05)}, "constant"),
        ({"feature_std": half_way(0.55, 0.15)}, "healthy"),
        ({"rankme": half_way(40, 1.5)}, "constant"),
        ({"feature_std": lambda t: 0.0, "rankme": lambda t: 1.0}, "constant"),
        ({"rankme": half_way(40, 9), "loss": half_way(6, 5)}, "collapse"),
        ({"rankme": half_way(40, 9)}, "shortcut"),
        ({"rankme": half_way(40, 15)}, "healthy"),
        ({"projection_std": half_way(0.8, 0.1)}, "collapse"),
        ({"projection_rankme": half_way(80, 2.5)}, "collapse"),
        ({"projection_rankme": half_way(3.5, 2.5)}, "healthy"),  # a head so narrow from the start
        ({"alignment": half_way(0.5, 0.6), "loss": half_way(6, 0.1)}, "shortcut"),
        ({"alignment": half_way(0.5, 0.6), "loss": half_way(6, 1)}, "healthy"),
    ],
)
def test_what_becomes_of_the_features(columns, kind):
    assert kinds(curve(**columns)) == [kind]
    assert findings(curve(**columns), None, 200, "images")[0].sick == (kind != "healthy")
    (of_images,), (of_blocks,) = (findings(curve(**columns), None, 200, unit) for unit in ("images", "blocks"))
    assert of_blocks.words == of_images.words.replace("an image", "a block").replace("image", "block")


def test_features_that_keep_enough_for_the_answers_are_a_shortcut_but_not_sick():
    few = curve(rankme=half_way(40, 5), loss=half_way(2.4, 0.1))
    assert [
        one.sick for one in findings(few, Choices(4, "quarter turns"), 200, "images") if one.kind == "shortcut"
    ] == [False]
    assert [one.sick for one in findings(few, Choices(1000, "classes"), 200, "images") if one.kind == "shortcut"] == [
        True
    ]


def test_columns_that_a_method_does_not_have_are_not_asked_for():
    absent = ("projection_std", "projection_rankme", "alignment", "uniformity")
    rows = [{name: value for name, value in one.items() if name not in absent} for one in curve()]
    assert kinds(rows) == ["healthy"]


def test_cut_short_is_a_note_on_a_healthy_run():
    rows = curve(loss=lambda t: 6 - 4 * t)
    assert kinds(rows) == ["healthy", "unfinished"]
    assert not any(one.sick for one in findings(rows, None, 200, "images"))
    assert kinds(rows[:15], steps=200) == []
    assert kinds(curve(loss=lambda t: 6 - 0.1 * t)) == ["healthy"]


def test_nothing_is_said_before_a_fifth_of_the_run_nor_of_fewer_than_three_rows():
    rows = curve(feature_std=lambda t: 0.0)
    assert [bool(kinds(rows[:number], steps=200)) for number in range(1, 20)] == [False] * 6 + [True] * 13
    short = curve(2, feature_std=lambda t: 0.0)
    assert kinds(short) == ["short"]
    assert kinds(short[:1]) == ["short"]


# Real runs of every method, and sick ones. Most are kept as files, which tests/make_curves.py has written.


def kept(name: str) -> tuple[list[Row], Choices | None]:
    with (CURVES / f"{name}.csv").open(newline="", encoding="utf-8") as handle:
        rows = [{column: float(value) for column, value in row.items()} for row in csv.DictReader(handle)]
    counts = {int(row.pop("choices")) for row in rows}
    (count,) = counts
    return rows, Choices(count, "answers") if count else None


def said(rows: list[Row], choices: Choices | None) -> list[list[Finding]]:
    """What is said each time that a row is written."""
    return [findings(rows[:number], choices, int(rows[-1]["step"]), "images") for number in range(2, len(rows) + 1)]


EXPECTED = {
    "rate_too_high": {"chance", "constant"},
    "rate_too_low": {"unchanged"},
    "dead_encoder": {"chance", "constant"},
    "temperature_too_high": {"chance"},
    "decoupled_temperature_too_high": {"chance"},
    "densecl_temperature_too_high": {"chance"},
    "ibot_without_centre": {"collapse"},
    "ijepa_learning_targets": {"constant"},
    "dull_teacher": {"unchanged"},
    "diet_rate_too_high": {"chance", "constant"},
    "without_redundancy_term": {"shortcut"},
    "without_stopped_gradient": {"collapse"},
    "without_predictor": {"collapse"},
    "simsiam_without_stopped_gradient": {"collapse"},
    "without_variance_and_covariance": {"shortcut"},
    "without_gaussian": {"shortcut"},
    "without_centre": {"collapse"},
    "without_coding_rate": {"collapse"},
    "codes_all_alike": {"chance"},
}
IN_THE_END = {
    "encoder_dies_in_the_end": {"chance", "constant"},
    "dinov2_answers_all_alike": {"chance"},
    "neighbours_all_the_same": {"chance"},
    "random_labels": {"chance"},
    "colours_by_chance": {"chance"},
    "colours_by_chance_regression": {"chance"},
}
"""They may get better until the run is over."""


def test_every_kept_curve_is_judged_and_every_method_has_a_healthy_one():
    assert {file.stem for file in CURVES.glob("*.csv")} == {*HEALTHY, *SICK}
    assert {*SICK} == {*EXPECTED, *IN_THE_END}
    assert {*load(RECIPE)["methods"]} <= {*HEALTHY}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_are_not_called_sick(name):
    *on_the_way, last = said(*kept(name))
    assert [one for some in on_the_way for one in some] == []
    assert last[0].kind == "healthy", last


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_sick_is_named_while_it_runs(name):
    for some in said(*kept(name))[-2:]:
        assert {one.kind for one in some if one.sick} == EXPECTED[name], some


@pytest.mark.parametrize("name", IN_THE_END)
def test_what_is_sick_is_named_in_the_end(name):
    last = said(*kept(name))[-1]
    assert {one.kind for one in last if one.sick} == IN_THE_END[name], last


@pytest.mark.parametrize("name", ["simclr", "random_labels"])
def test_runs_say_what_their_kept_curves_say(name, tmp_path):
    run = (HEALTHY | SICK)[name]
    made = list(run.rows(run.images(tmp_path / "prepared")))
    rows, (_, choices) = [row for row, _ in made], made[0]
    before, kept_choices = kept(name)
    # Later rows differ with the last bits of sums, from machine to machine.
    assert {column: rows[0][column] for column in before[0]} == pytest.approx(before[0], rel=1e-3)
    assert (choices and choices.count) == (kept_choices and kept_choices.count)
    assert [one.kind for one in said(rows, choices)[-1] if one.sick] == [
        one.kind for one in said(before, kept_choices)[-1] if one.sick
    ]


# The stage

PARAMS = """
compute: {device: cpu, threads: 1}
encoder: {name: resnet10, width: 4}
pretrain: {log_every: 2, diagnostics: 32}
inspect: {pictures: 4}
start: {}
methods:
  simclr: {projector: [16, 8], train: {epochs: 4, batch_size: 40, lr: 1e-9}, views: {blur: {p: 0.0}}}
"""


def test_the_verdict_is_written_and_pictures_are_drawn_without_a_training(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    pretrain.main("simclr", 0)
    trained = {file: file.read_bytes() for file in (paths.encoder("simclr", 0), paths.curve("simclr", 0))}
    assert not paths.verdict("simclr", 0).exists()
    inspect.main("simclr", 0)
    torch.use_deterministic_algorithms(False)

    out = capsys.readouterr().out
    assert re.search(r"^inspect simclr-0  verdict: Nothing has been learned: ", out, re.MULTILINE)
    assert {file: file.read_bytes() for file in trained} == trained
    with Image.open(paths.pictures("simclr", 0)) as drawn:
        assert drawn.width > 72
    (said,) = read_json(paths.verdict("simclr", 0), list)
    assert set(said) == {"kind", "words", "advice", "sick"}
    assert (said["kind"], said["sick"]) == ("unchanged", True)

    rows = read_curve(paths.curve("simclr", 0))
    assert [row["step"] for row in rows] == ["0", "2", "4", "6", "8", "10", "12"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    assert set(rows[0]) <= set(read_json(paths.metrics("pretrain", "simclr-0")))
