"""What a run says of settings that turn out not to fit: the step, the method, the setting, what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from sslflow.data.dataset import Dataset
from sslflow.methods.images.rotation import Rotation
from sslflow.methods.images.simclr import SimCLR
from sslflow.monitoring.watch import Watch
from sslflow.networks.encoder import Encoder
from sslflow.training import epochs
from sslflow.training.run import Journal, Run
from tests.conftest import first_images, write_dataset

CPU = torch.device("cpu")
SMALL = {"name": "resnet10", "width": 4, "stem_stride": 2}
TRAIN: dict[str, Any] = {"epochs": 2, "batch_size": 40, "lr": 1e-3}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(dataset: Dataset, rows: np.ndarray | None = None, encoder: dict[str, Any] = SMALL, **settings: Any) -> Run:
    method = SimCLR(Encoder(1, 28, **encoder), projector=(8, 8))
    run = Run("test", "simclr", 3, Journal(log_every=1), CPU, [settings], unit="images")
    rows = dataset.pretraining_rows if rows is None else rows
    watch = Watch(method, None, dataset, rows[:30], CPU, 0)
    section = "methods.simclr.train"
    for moment in run.train(method, method.Views(dataset.format), dataset, rows, section, **{**TRAIN, **settings}):
        run.look(moment, watch, section)
    return run


@pytest.mark.parametrize("rate", [1e30, 1e15])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_rate_far_too_high_names_the_step_the_method_and_what_to_do(dataset, rate, optimizer):
    with pytest.raises(ValueError, match=r"not finite|the loss is") as caught:
        train(dataset, lr=rate, optimizer=optimizer)
    said = str(caught.value)
    for words in ("simclr, seed 3: ", "step ", "smaller lr", "methods.simclr.train", "checkpoint"):
        assert words in said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 1}, "1 of 120 examples leaves one alone, and BatchNorm needs two: at least 2"),
        ({"batch_size": 40, "accumulate": 40}, "40 of 120 examples over 40 parts (accumulate) leaves one alone"),
        ({"batch_size": 3, "accumulate": 2}, "3 of 120 examples over 2 parts (accumulate) leaves one alone"),
    ],
)
def test_a_batch_of_which_one_image_stands_alone_is_named(dataset, settings, words, monkeypatch):
    monkeypatch.setattr(SimCLR, "additive", True)
    with pytest.raises(ValueError, match="BatchNorm needs two") as caught:
        train(dataset, **settings)
    assert str(caught.value).startswith("methods.simclr.train.batch_size: ")
    assert words in str(caught.value)


def test_without_batch_normalisation_one_image_may_stand_alone(dataset):
    vit = {"name": "vit_tiny", "width": 32, "depth": 1, "patch_size": 7}
    method = Rotation(Encoder(1, 28, **vit))
    run = Run("test", "rotation", 0, Journal(), CPU, [], unit="images")
    rows = dataset.pretraining_rows[:3]
    for _ in run.train(method, method.Views(dataset.format), dataset, rows, "here", **{**TRAIN, "batch_size": 1}):
        pass
    assert run.curve[-1]["step"] == 6


def process(number: int, folder: str, world: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world)
    dataset, found = Dataset(Path(folder) / "data"), {}
    for images, batch in ((25, 128), (25, 25), (3, 128)):
        try:
            train(dataset, dataset.pretraining_rows[:images], batch_size=batch, epochs=1)
            found[f"{images} {batch}"] = "trained"
        except ValueError as error:
            found[f"{images} {batch}"] = str(error)
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_images_that_two_processes_can_t_share_are_named_with_the_setting(tmp_path):
    images, labels = first_images(30)
    write_dataset(tmp_path / "data", images, labels, ["train"] * 30)
    spawn(process, args=(str(tmp_path), 2), nprocs=2)
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert found["25 128"] == "trained"
        place = "methods.simclr.train.batch_size: "
        assert found["25 25"] == f"{place}25 can't be shared by 2 processes (run.launch): choose a multiple of 2"
        # An image each: BatchNorm normalises over both.
        assert found["3 128"] == "trained"


def test_fewer_images_than_processes_are_named(dataset, monkeypatch):
    monkeypatch.setattr(epochs, "world_size", lambda: 4)
    with pytest.raises(epochs.UnfitBatch, match=r"2 examples are fewer than 4 processes \(run.launch\): start fewer"):
        epochs.Epochs(dataset, dataset.pretraining_rows[:2], 0, CPU)
