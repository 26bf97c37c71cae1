"""A run: what it writes down, what it says on its way, and how its method is built and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslflow.methods.images.dino import DINO
from sslflow.methods.images.rotation import Rotation
from sslflow.methods.images.simclr import SimCLR
from sslflow.methods.images.supervised import Supervised
from sslflow.networks.encoder import Encoder
from sslflow.reporting.running import training
from sslflow.runtime.energy import Meter
from sslflow.runtime.files import sha256, write_text
from sslflow.training.ingredients import build, ingredients, of_examples
from sslflow.training.method import Batch, Losses, Method
from sslflow.training.run import Journal, Run
from sslflow.training.saved import load_weights, save_method
from sslflow.views.images import CropView

CPU = torch.device("cpu")
SMALL = {"name": "resnet10", "width": 4, "stem_stride": 2}
TRAIN: Any = {"epochs": 4, "batch_size": 40, "lr": 1e-3}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ran(method: Method, dataset, name: str = "x", signs: dict[str, float] | None = None, **train: Any) -> Run:
    run = Run("test", name, 0, Journal(log_every=2), CPU, [train], unit="images")
    for moment in run.train(method, method.Views(dataset.format), dataset, dataset.pretraining_rows, "here", **train):
        moment.signs.update(signs or {})
    return run


def encoder() -> Encoder:
    return Encoder(1, 28, **SMALL)


def test_rows_are_due_before_the_first_step_every_so_many_and_after_the_last(dataset):
    run = ran(SimCLR(encoder(), projector=(8,)), dataset, signs={"rankme": 3.0}, **{**TRAIN, "epochs": 3})
    assert [row["step"] for row in run.curve] == [0, 2, 4, 6, 8, 9]
    assert all(row["rankme"] == 3.0 for row in run.curve)
    assert list(run.curve[0]) == list(run.curve[-1])
    metrics = run.metrics(120, "images")
    assert metrics["images_per_second"] == pytest.approx(360 / metrics["seconds"])
    run.write_curve(Path("curve.csv"))
    assert Path("curve.csv").read_text().count("\n") == 7


def test_energy_is_told_where_it_is_counted_and_nothing_where_it_is_not(dataset, monkeypatch, tmp_path):
    rapl = tmp_path / "rapl"
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "9000000"), ("energy_uj", "0")):
        write_text(rapl / "intel-rapl:0" / name, text)
    monkeypatch.setattr("sslflow.training.run.Meter", lambda device: Meter(device, rapl))
    method = SimCLR(encoder(), projector=(8,))
    run = Run("test", "x", 0, Journal(log_every=2), CPU, [], unit="images")
    rows = dataset.pretraining_rows
    for moment in run.train(method, method.Views(dataset.format), dataset, rows, "here", **TRAIN):
        write_text(rapl / "intel-rapl:0/energy_uj", str(600_000 * moment.step))
    assert run.curve[-1]["step"] == 12
    assert run.metrics(120, "images")["energy_wh"] == pytest.approx(0.002)
    (rapl / "intel-rapl:0/energy_uj").unlink()
    assert "energy_wh" not in ran(method, dataset, "y", **TRAIN).metrics(120, "images")


def test_who_looks_on_is_shown_the_curve_until_the_run_has_ended(dataset, monkeypatch):
    monkeypatch.setattr("sslflow.training.run.SHOWN_EVERY", 0.0)
    run = ran(SimCLR(encoder(), projector=(8,)), dataset, signs={"rankme": 3.0, "feature_std": 0.5}, **TRAIN)
    assert training("pretrain@x-0") is None, "of a stage called test"
    run.checkpoint.file.parent.parent.rename("work/pretrain")
    journal = next(Path("work/pretrain").glob("*/journal.json"))
    journal.write_text(journal.read_text().replace('"test x-0"', '"pretrain x-0"'))
    found = training("pretrain@x-0")
    assert found
    assert (found.step, found.steps, [row["step"] for row in found.rows]) == (12, 12, ["0", *map(str, range(2, 13, 2))])
    assert found.seconds_left == 0
    assert found.findings, "at the end there is something to say"
    journal.write_text("{")
    assert training("pretrain@x-0") is None, "it is being written"


def test_images_that_an_epoch_leaves_out_are_told_and_not_counted(dataset, capsys):
    """120 images in batches of 70: an epoch is one batch."""
    run = ran(SimCLR(encoder(), projector=(8,)), dataset, **{**TRAIN, "batch_size": 70})
    metrics = run.metrics(120, "images")
    assert metrics["images_per_second"] == pytest.approx(4 * 70 / metrics["seconds"])
    assert capsys.readouterr().out.count("each epoch sees 70 of 120") == 1
    ran(SimCLR(encoder(), projector=(8,)), dataset, **{**TRAIN, "batch_size": 500})
    ran(SimCLR(encoder(), projector=(8,)), dataset, **{**TRAIN, "batch_size": 40})
    assert "each epoch sees" not in capsys.readouterr().out


def test_a_loss_that_stays_at_chance_level_is_said_once(dataset, capsys):
    torch.manual_seed(0)
    ran(SimCLR(encoder(), projector=(8,), temperature=100.0), dataset, **TRAIN)
    said = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(said) == 1
    assert "chance level among the 79 views of the batch is 4.369" in said[0]
    ran(SimCLR(encoder(), projector=(8,), temperature=0.2), dataset, "y", **TRAIN)
    assert "warning" not in capsys.readouterr().out


class Unequal(Rotation):
    """Its answers are not equally likely: a constant answer costs half of what ln 4 is."""

    def training_step(self, batch: Batch) -> Losses:
        found = super().training_step(batch)
        return {"loss": 0 * found["loss"] + 0.7, "chance_loss": torch.tensor(0.7)}


def test_chance_level_is_what_the_method_says(dataset, capsys):
    ran(Unequal(encoder()), dataset, **TRAIN)
    assert "the loss stands at 0.7; chance level of a constant answer is 0.7" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_ends_the_run_with_what_to_do(dataset):
    class Broken(Rotation):
        def training_step(self, batch: Batch) -> Losses:
            return {"loss": super().training_step(batch)["loss"] * (torch.nan if batch.progress > 0.3 else 1.0)}

    with pytest.raises(ValueError, match=r"nan at step 5 of 12; try a smaller lr.* in here; no checkpoint"):
        ran(Broken(encoder()), dataset, **TRAIN)


# Ingredients


def test_a_constructor_says_what_it_is_given(dataset):
    assert ingredients(SimCLR) == ("encoder",)
    assert ingredients(Supervised) == ("encoder", "labels")
    rows = dataset.pretraining_rows
    assert torch.equal(
        build(Supervised, of_examples(dataset, rows, SMALL), {}).labels, torch.from_numpy(dataset.labels[rows])
    )


class Hungry(Method):
    Views = CropView

    def __init__(self, encoder: Encoder, oracle: Tensor) -> None:
        super().__init__()


def test_what_can_t_be_had_is_named(dataset):
    with pytest.raises(ValueError, match="Hungry asks for oracle, and there is only encoder, labels"):
        build(Hungry, of_examples(dataset, dataset.pretraining_rows, SMALL), {})


# Kept


def dino(seed: int, **settings: Any) -> DINO:
    torch.manual_seed(seed)
    return DINO(encoder(), projector=(16, 8), prototypes=12, **settings)


def test_a_method_is_kept_whole_once_and_in_the_same_bytes(tmp_path):
    first, second = dino(0), dino(1)
    shared = nn.ModuleDict({"a": first, "b": first.encoder})  # the encoder has two names
    for name in ("x", "y"):
        save_method(shared, tmp_path / name)
    assert sha256(tmp_path / "x") == sha256(tmp_path / "y")
    other = nn.ModuleDict({"a": second, "b": second.encoder})
    load_weights(other, tmp_path / "x")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in shared.state_dict().items())
    save_method(first, tmp_path / "alone")
    assert (tmp_path / "x").stat().st_size < 1.1 * (tmp_path / "alone").stat().st_size


def test_weights_of_something_else_are_refused(tmp_path):
    save_method(dino(0), tmp_path / "dino")
    with pytest.raises(ValueError, match="doesn't hold the weights of SimCLR with these settings"):
        load_weights(SimCLR(encoder(), projector=(8,)), tmp_path / "dino")
    with pytest.raises(ValueError, match="run `dvc repro pretrain` first"):
        load_weights(dino(0), tmp_path / "nothing")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="text: damaged"):
        load_weights(dino(0), tmp_path / "text")
