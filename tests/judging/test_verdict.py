"""The verdict on a run: thresholds on curves made up, and collapses provoked in real methods."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.judging.verdict import Finding, findings
from sslflow.methods.images.barlow_twins import BarlowTwins
from sslflow.methods.images.byol import BYOL, distance
from sslflow.methods.images.dino import DINO
from sslflow.methods.images.rotation import Rotation
from sslflow.methods.images.simclr import SimCLR
from sslflow.methods.images.simsiam import SimSiam, negative_cosine
from sslflow.methods.images.swav import SwAV
from sslflow.methods.images.vicreg import VICReg
from sslflow.monitoring.watch import Watch
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import Prototypes, mlp
from sslflow.networks.teacher import Teacher
from sslflow.reporting.curves import read_curve
from sslflow.runtime.files import read_json
from sslflow.runtime.rng import derive
from sslflow.stages import inspect, pretrain
from sslflow.training.fit import fit
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.training.run import first_row, row
from tests.conftest import write_dataset

CPU = torch.device("cpu")
ROWS = 6


# Curves made up. Each is a healthy one but for what its test changes.


def curve(rows: int = 20, **columns: Callable[[float], float]) -> list[dict[str, float]]:
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
    return [one.kind for one in findings(rows, choices, int(rows[-1]["step"]) if steps is None else steps)]


K = Choices(1024, "prototypes")
LN_K = math.log(1024)


def test_a_healthy_curve_is_called_healthy_with_its_numbers():
    (said,) = findings(curve(), K, 200)
    assert (said.kind, said.sick, said.advice) == ("healthy", False, "")
    for words in (
        "from 6 to 2.0",
        "(a guess costs 6.931)",
        "30.8 directions (RankMe), 40.0 at the start",
        "at 0.52 of",
    ):
        assert words in said.words


@pytest.mark.parametrize(
    ("loss", "frozen"),
    [
        (lambda t: LN_K, True),
        (lambda t: LN_K + 0.06 * math.sin(100 * t), True),  # scatters around it
        (lambda t: LN_K + 0.5 * math.exp(-20 * t), True),  # has come down to it
        (lambda t: LN_K - 0.02 * LN_K, False),
        (lambda t: LN_K * (1.5 - t / 2), False),  # reaches it in its last row
        (lambda t: LN_K * (1.3 - t / 3), False),  # passes it on its way
    ],
)
def test_a_loss_that_stands_at_chance_is_frozen(loss, frozen):
    assert ("frozen" in kinds(curve(loss=loss), K)) == frozen
    assert "frozen" not in kinds(curve(loss=loss))


def test_frozen_names_the_number_and_what_is_chosen_among():
    (said, *_) = findings(curve(loss=lambda t: LN_K), K, 200)
    assert "ln 1024 = 6.931" in said.words
    assert "1024 prototypes" in said.words


def test_a_loss_that_falls_in_the_end_is_not_frozen_any_more():
    late = curve(loss=lambda t: LN_K if t < 0.6 else LN_K - 5 * (t - 0.6))
    assert kinds(late[:11], K, 200) == ["frozen"]
    assert "frozen" not in kinds(late, K)


def test_what_does_not_move_has_not_learned_wherever_its_loss_is():
    still = {"rankme": lambda t: 40 + t, "uniformity": lambda t: -1.2}
    for loss in (lambda t: 6 - t / 10, lambda t: 6 - 5 * t, lambda t: -0.8 * t):
        assert kinds(curve(loss=loss, **still)) == ["still"]
    # A method with a teacher may learn while its loss stays.
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
        ({"rankme": half_way(40, 9)}, "hollow"),
        ({"rankme": half_way(40, 15)}, "healthy"),
        ({"projection_std": half_way(0.8, 0.1)}, "collapse"),
        ({"projection_rankme": half_way(80, 2.5)}, "collapse"),
        ({"projection_rankme": half_way(3.5, 2.5)}, "healthy"),  # a head so narrow from the start
        ({"alignment": half_way(0.5, 0.6), "loss": half_way(6, 0.1)}, "hollow"),
        ({"alignment": half_way(0.5, 0.6), "loss": half_way(6, 1)}, "healthy"),
    ],
)
def test_what_becomes_of_the_features(columns, kind):
    assert kinds(curve(**columns)) == [kind]
    assert findings(curve(**columns), None, 200)[0].sick == (kind != "healthy")


def test_features_that_keep_enough_for_the_answers_are_hollow_but_not_sick():
    few = curve(rankme=half_way(40, 5), loss=half_way(2.4, 0.1))
    assert [one.sick for one in findings(few, Choices(4, "quarter turns"), 200) if one.kind == "hollow"] == [False]
    assert [one.sick for one in findings(few, Choices(1000, "classes"), 200) if one.kind == "hollow"] == [True]


def test_columns_that_a_method_does_not_have_are_not_asked_for():
    absent = ("projection_std", "projection_rankme", "alignment", "uniformity")
    rows = [{name: value for name, value in one.items() if name not in absent} for one in curve()]
    assert kinds(rows) == ["healthy"]


def test_cut_short_is_a_note_on_a_healthy_run():
    rows = curve(loss=lambda t: 6 - 4 * t)
    assert kinds(rows) == ["healthy", "unfinished"]
    assert not any(one.sick for one in findings(rows, None, 200))
    assert kinds(rows[:15], steps=200) == []
    assert kinds(curve(loss=lambda t: 6 - 0.1 * t)) == ["healthy"]


def test_nothing_is_said_before_a_fifth_of_the_run_nor_of_fewer_than_three_rows():
    rows = curve(feature_std=lambda t: 0.0)
    assert [bool(kinds(rows[:number], steps=200)) for number in range(1, 20)] == [False] * 6 + [True] * 13
    short = curve(rows=2, feature_std=lambda t: 0.0)
    assert kinds(short) == ["short"]
    assert kinds(short[:1]) == ["short"]


# Real runs, of a few seconds each, and the healthy counterpart of each, of the same length.


@pytest.fixture(scope="module")
def images(fashion, tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("verdict") / "prepared"
    return write_dataset(folder, fashion[0], fashion[1], ["train"] * 512, shard=512)


@dataclass
class Run:
    kind: Callable[..., Method]
    settings: dict[str, Any]
    views: dict[str, Any] = field(default_factory=lambda: TWO_VIEWS)
    lr: float = 3e-3
    batch_size: int = 64
    epochs: int = 5

    def findings(self, dataset: Dataset) -> list[list[Finding]]:
        """What is said each time that a row is written."""
        torch.manual_seed(derive(0, "init"))
        method = self.kind(Encoder(1, 28, name="resnet10", width=8, stem_stride=2), **self.settings)
        views = method.Views(dataset.format, **self.views)
        watch = Watch(method, views, dataset, dataset.pretraining_rows[:160], CPU, 0)
        before, rows, said = watch(), [], []
        for step in fit(method, views, dataset, CPU, 0, epochs=self.epochs, batch_size=self.batch_size, lr=self.lr):
            if step.number == 1:
                rows.append(first_row(step, before))
            if step.number * ROWS // step.steps > (step.number - 1) * ROWS // step.steps:
                rows.append(row(step, watch()))
                said.append(findings(rows, method.choices(step.batch_size), step.steps))
                method.train()
        return said


class WithoutStoppedGradient(BYOL):
    def training_step(self, batch: Batch) -> Losses:
        za, zb = (self.projector(self.encoder(view)) for view in batch.views)
        return {"loss": distance(self.predictor(za), zb) + distance(self.predictor(zb), za)}


class WithoutPredictor(BYOL):
    def __init__(self, encoder: Encoder, **settings: Any) -> None:
        super().__init__(encoder, **settings)
        self.predictor = nn.Sequential()


class SimSiamWithoutStoppedGradient(SimSiam):
    def training_step(self, batch: Batch) -> Losses:
        za, zb = (self.projector(self.encoder(view)) for view in batch.views)
        return {"loss": (negative_cosine(self.predictor(za), zb) + negative_cosine(self.predictor(zb), za)) / 2}


class WithoutCentre(DINO):
    """And without the BatchNorm at the end of the projector, which is a kind of centre, too."""

    def __init__(self, encoder: Encoder, *, projector: tuple[int, ...], prototypes: int, **settings: Any) -> None:
        super().__init__(encoder, projector=projector, prototypes=prototypes, **settings)
        self.head = nn.Sequential(mlp(encoder.dim, *projector), Prototypes(projector[-1], prototypes))
        self.teacher = Teacher(self.student)

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.centre.zero_()


class Dead(SimCLR):
    """Its encoder gives out nothing but zeros."""

    def __init__(self, encoder: Encoder, **settings: Any) -> None:
        super().__init__(encoder, **settings)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.zero_()


HEAD: dict[str, Any] = {"projector": (256, 64)}
WIDE: dict[str, Any] = {"projector": (512, 256)}
CONTRAST = {**HEAD, "temperature": 0.2}
SLOW_SELF = {**HEAD, "predictor": 128, "momentum": 0.99}
SELF = {"projector": (512, 512, 512), "predictor": 128}
CODES = {**HEAD, "prototypes": 64}
ANSWERS = {**CODES, "momentum": 0.9, "teacher_temperature": 0.04}
TWO_VIEWS = {"smallest_crop": 0.4, "blur": 0.0}
CROPS = {**TWO_VIEWS, "local_crops": 0}

HEALTHY = {
    "rotation": Run(Rotation, {}, {}, batch_size=16, epochs=2),
    "simclr": Run(SimCLR, CONTRAST),
    "barlow_twins": Run(BarlowTwins, WIDE, lr=2e-2),
    "byol": Run(BYOL, SLOW_SELF),
    "simsiam": Run(SimSiam, SELF, lr=6e-3),
    "vicreg": Run(VICReg, HEAD, lr=1e-2),
    "dino": Run(DINO, ANSWERS, CROPS),
    "swav": Run(SwAV, CODES, CROPS),
}
SICK = {
    "rate_too_high": (Run(Rotation, {}, {}, lr=3.0, batch_size=16, epochs=3), {"constant"}),
    "rate_too_low": (Run(SimCLR, CONTRAST, lr=1e-6, epochs=3), {"still"}),
    "dead_encoder": (Run(Dead, CONTRAST, epochs=1), {"frozen", "constant"}),
    "temperature_too_high": (Run(SimCLR, {**HEAD, "temperature": 100.0}, epochs=2), {"frozen"}),
    "without_redundancy_term": (Run(BarlowTwins, {**WIDE, "redundancy": 0.0}, lr=2e-2), {"collapse"}),
    "without_stopped_gradient": (Run(WithoutStoppedGradient, SLOW_SELF, epochs=3), {"collapse"}),
    "without_predictor": (Run(WithoutPredictor, {**SLOW_SELF, "momentum": 0.5}, epochs=3), {"collapse"}),
    "simsiam_without_stopped_gradient": (Run(SimSiamWithoutStoppedGradient, SELF, lr=6e-3), {"collapse"}),
    "without_variance_and_covariance": (
        Run(VICReg, {**HEAD, "variance": 0.0, "covariance": 0.0}, lr=1e-2),
        {"hollow"},
    ),
    "without_centre": (Run(WithoutCentre, ANSWERS, CROPS), {"collapse"}),
    "codes_all_alike": (Run(SwAV, {**CODES, "iterations": 1, "epsilon": 1000.0}, CROPS), {"frozen"}),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_are_not_called_sick(name, images):
    said = HEALTHY[name].findings(images)
    assert [one.kind for some in said[:-1] for one in some] == []
    assert said[-1][0].kind == "healthy", said[-1]


@pytest.mark.parametrize("name", SICK)
def test_what_is_sick_is_named_while_it_runs(name, images):
    run, expected = SICK[name]
    said = run.findings(images)
    for some in (said[-2], said[-1]):
        assert {one.kind for one in some if one.sick} & expected == expected, some


# The stage

PARAMS = """
compute: {device: cpu, threads: 1}
encoder: {name: resnet10, width: 4}
pretrain: {log_every: 2, diagnostics: 32}
inspect: {pictures: 4}
methods:
  simclr: {projector: [16, 8], train: {epochs: 4, batch_size: 40, lr: 1e-9}, views: {blur: 0.0}}
"""


def test_the_stage_writes_its_verdict_and_draws_without_a_training(dataset, tmp_path, monkeypatch, capsys):
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
    (said,) = read_json(paths.verdict("simclr", 0))
    assert set(said) == {"kind", "words", "advice", "sick"}
    assert (said["kind"], said["sick"]) == ("still", True)

    rows = read_curve(paths.curve("simclr", 0))
    assert [row["step"] for row in rows] == ["0", "2", "4", "6", "8", "10", "12"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    assert set(rows[0]) <= set(read_json(paths.metrics("pretrain", "simclr-0")))
