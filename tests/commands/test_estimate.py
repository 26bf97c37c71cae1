"""What a run would take: measured on small real images, and what is said against running it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_fixtures import prepared as boxes_prepared
from PIL import Image
from ruamel.yaml import YAML

from sslflow.commands.estimate import bench, sample, stages, training
from sslflow.commands.estimate.clock import taking
from sslflow.commands.estimate.cost import Cost, notes, size, table
from sslflow.commands.estimate.startup import LIGHT, NETWORKS, TENSORS, Startup
from sslflow.data.dataset import Dataset
from sslflow.data.truth import write_truth
from sslflow.methods.images.deepcluster import DeepCluster
from sslflow.methods.images.rotation import Rotation
from sslflow.networks.encoder import Encoder
from sslflow.reporting.leaderboard import duration
from sslflow.settings.params import load
from sslflow.training.ingredients import build
from sslflow.training.method import Method
from tests.conftest import ROOT
from tests.mask_fixtures import masked_dataset

CPU = torch.device("cpu")
STARTS = {kind: Startup(1.0, 100 * 10**6) for kind in (LIGHT, TENSORS, NETWORKS)}
TRAINED = ["prepare", "pretrain@rotation-0", "extract@rotation-0"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements are as short as can be."""
    for module in (bench, sample, training):
        monkeypatch.setattr(module, "SECONDS", 0.05)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fashion: tuple[np.ndarray, np.ndarray]) -> Path:
    """Eighty files in four folders of classes, and settings for them."""
    monkeypatch.chdir(tmp_path)
    images, labels = fashion
    for kind in range(4):
        place = tmp_path / f"data/raw/{kind}"
        place.mkdir(parents=True)
        for number, image in enumerate(images[labels == kind][:20]):
            Image.fromarray(image[0]).save(place / f"{number}.png")
    return tmp_path


def settings(**changed: Mapping[str, Any]) -> None:
    """params.yaml: the recipe for a CPU, from random weights, made small."""
    content = load(ROOT / "recipes/cpu.yaml")
    content["run"] |= {"methods": ["rotation"], "seeds": [0], "controls": ["random"], "tuned_controls": ["scratch"]}
    content["data"] |= {"image_size": 28, "channels": 1, "workers": 1, "source": "imagefolder"}
    content["encoder"] = {"name": "resnet10", "width": 4, "stem_stride": 2}
    content["start"]["weights"], content["starts"] = "random", {}
    content["methods"]["rotation"]["train"] = {"epochs": 2, "batch_size": 16}
    for section, own in changed.items():
        content[section] = {**content[section], **own}
    with Path("params.yaml").open("w") as handle:
        YAML(typ="safe").dump(content, handle)


def costs(*names: str) -> tuple[dict[str, Cost], list[str]]:
    return stages.costs(names, STARTS, lambda line: None)


def test_every_stage_for_images_has_a_cost(folder: Path) -> None:
    settings()
    run = [
        "pseudolabel@rotation-0",
        "audit_clusters@rotation",
        "probe@rotation-0",
        "probe_control@random-0",
        "finetune@rotation-0",
        "segment@rotation-0",
        "segment_control@scratch-0",
        "detect@rotation-0",
        "detect_control@random-0",
    ]
    before = {file for file in folder.rglob("*") if file.is_file()}
    found, doubts = costs(*TRAINED, *run, "finetune_control@scratch-0", "preview@rotation", "audit", "report")
    assert all(cost.ram >= STARTS[LIGHT].ram for cost in found.values())
    idle = {"segment@rotation-0", "segment_control@scratch-0", "detect@rotation-0", "detect_control@random-0"}
    assert {name for name, cost in found.items() if cost.seconds <= 1.0} == idle, "there are no masks and no boxes"
    assert found["prepare"].disk == 2 * 80 * (28 * 28 + 200), "in DVC's cache, too"
    assert "the linear classifier" in found["probe@rotation-0"].parts
    assert "the network" in found["probe_control@random-0"].parts
    assert {"views", "the network's steps", "diagnostics", "calibrating"} < found["pretrain@rotation-0"].parts.keys()
    assert doubts == ["64 images to pretrain on: too few to learn an encoder from; take weights that exist "
                      "(docs/starts.md), or add images"]  # fmt: skip
    assert {file for file in folder.rglob("*") if file.is_file()} - before == set(), "nothing stays of it"


def test_images_kept_as_jpeg_cost_the_room_that_these_take(folder: Path) -> None:
    settings(data={"store": "jpeg"})
    found = costs("prepare")[0]["prepare"]
    a_jpeg = found.disk / 2 / 80 - 200
    assert 300 < a_jpeg < 32 * 32, "as large as those of a part of them, and no pixels"


def test_segmentation_costs_its_steps_where_there_are_masks(folder: Path) -> None:
    own = {"fractions": [0.5, 1.0], "epochs": 1, "min_steps": 40, "batch_size": 4, "width": 4}
    settings(segment=own, data={"image_size": 32, "channels": 3})
    masked_dataset(folder / "data/prepared")
    found = costs("segment_control@scratch-0", "segment_control@random-0")[0]
    parts = found["segment_control@scratch-0"].parts
    settings(segment={**own, "min_steps": 4000}, data={"image_size": 32, "channels": 3})
    longer = costs("segment_control@scratch-0")[0]["segment_control@scratch-0"].parts
    assert longer["the network's steps"] > 20 * parts["the network's steps"] > 0
    assert found["segment_control@random-0"].parts.keys() == parts.keys()
    (folder / "data/prepared/truth.parquet").unlink()
    write_truth(folder / "data/prepared", {})
    assert set(costs("segment_control@scratch-0")[0]["segment_control@scratch-0"].parts) == {"starting"}


def test_detection_costs_its_steps_where_there_are_boxes(folder: Path) -> None:
    own = {"fractions": [0.5, 1.0], "epochs": 1, "min_steps": 40, "batch_size": 4, "width": 8}
    settings(detect=own, data={"image_size": 32, "channels": 3})
    boxes_prepared(folder / "data/prepared", 8, 4)
    found = costs("detect_control@scratch-0")[0]["detect_control@scratch-0"].parts
    settings(detect={**own, "min_steps": 4000}, data={"image_size": 32, "channels": 3})
    longer = costs("detect_control@scratch-0")[0]["detect_control@scratch-0"].parts
    assert longer["the network's steps"] > 20 * found["the network's steps"] > 0
    boxes_prepared(folder / "data/prepared", 8, 4, lambda number, split, things: None)
    assert set(costs("detect_control@scratch-0")[0]["detect_control@scratch-0"].parts) == {"starting"}


def steps(kind: type[Method], dataset: Dataset, full: int, **train: Any) -> training.Steps:
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    given = {"encoder": lambda: encoder, "images": lambda: full}
    method, views = build(kind, given, {}), kind.Views(dataset.format)
    settings = {"epochs": 3, "batch_size": 40, "lr": 1e-3, **train}
    return training.steps_of(method, views, dataset, dataset.pretraining_rows, full, CPU, None, settings)


def test_steps_are_those_of_all_images_not_of_those_at_hand(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SECONDS", 5.0)
    monkeypatch.setattr(training, "_mean", lambda run, one, left, device: one.seconds)
    found = steps(Rotation, dataset, 5000)
    assert (found.batch, found.count, found.epoch) == (40, 375, 0.0)
    assert 0 < found.views < found.seconds
    assert steps(Rotation, dataset, 30).batch == 30, "fewer images than a batch"
    monkeypatch.setattr(training, "SECONDS", 0.0)
    assert steps(Rotation, dataset, 5000).tried == 8, "there was no time for more"


def test_what_a_method_looks_at_between_epochs_grows_with_the_images(dataset: Dataset) -> None:
    small, large = (steps(DeepCluster, dataset, full, epochs=2).epoch for full in (1000, 100_000))
    assert small > 0
    assert large > 20 * small


def test_a_batch_that_memory_has_no_room_for_is_not_tried(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SECONDS", 60.0)
    monkeypatch.setattr(training, "_mean", lambda run, one, left, device: one.seconds)
    monkeypatch.setattr(training, "ram_now", lambda: 0)
    assert steps(Rotation, dataset, 5000, batch_size=200).tried < 200


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": {"image_size": 84}}, "images are 28 pixels wide (median) and data.image_size is 84"),
        ({"encoder": {"stem_stride": 4}}, "encoder resnet10 brings images of 28 pixels to a map of a single cell"),
    ],
)
def test_what_does_not_go_together_is_said(folder: Path, changed: dict[str, Any], said: str) -> None:
    settings(**changed)
    assert any(said in doubt for doubt in costs("prepare")[1])


def test_a_folder_without_images(folder: Path) -> None:
    settings(data={"path": "nowhere"})
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        costs("prepare")
    (folder / "nowhere").mkdir()
    settings(data={"path": "nowhere", "source": "folder"})
    with pytest.raises(ValueError, match="there are no images here"):
        costs("prepare")


def test_a_single_image(folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "data/raw/0/0.png").rename(folder / "one/0.png")
    settings(data={"path": "one", "source": "folder"})
    with pytest.raises(ValueError, match="pretraining needs at least two images, and there are 1"):
        costs(*TRAINED)


GIGA = 10**9


@pytest.mark.parametrize(
    ("found", "at_once", "said"),
    [
        ({"a": Cost(ram=5 * GIGA)}, 1, "a needs about 5.0 GB of memory, and there are 4.0 GB of RAM"),
        ({"a": Cost(ram=3 * GIGA), "b": Cost(ram=2 * GIGA)}, 2, "2 stages side by side may need 5.0 GB of memory"),
        ({"a": Cost(disk=3 * GIGA)}, 1, "3.0 GB of disk are needed, most of it by a (3.0 GB), and 2.0 GB are free"),
        ({"a": Cost(problems=["a: too much"])}, 1, "a: too much"),
        ({"a": Cost(ram=3 * GIGA, disk=GIGA), "b": Cost(ram=2 * GIGA)}, 1, ""),
    ],
)
def test_too_small_a_machine(found: dict[str, Cost], at_once: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ram", lambda: (4 * GIGA, "of RAM"))
    monkeypatch.setattr(stages, "free_disk", lambda: 2 * GIGA)
    refused = stages.refusals(found, at_once)
    assert len(refused) == bool(said)
    assert said in "".join(refused)


def test_memory_and_waiting_are_measured() -> None:
    with taking() as taken:
        time.sleep(0.05)
    assert taken.wall >= taken.seconds > 0.04
    # In a process of its own: of a large one the system may take memory away meanwhile.
    code = "with taking() as taken:\n    block = b'1' * 2**26\nprint(taken.grown)"
    code = f"from sslflow.commands.estimate.clock import taking\n{code}"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(told.stdout) > 0.9 * 2**26


def test_the_table() -> None:
    cost = Cost(10.0, ram=800 * 10**6, parts={"starting": 4.0})
    cost.spend("views", 6.0)
    other = Cost(4.0, notes=["reckoned"])
    assert table({"a": cost, "bcd": other}, with_gpu=False) == [
        "stage          time      RAM     disk  most of it",
        "a              16 s   800 MB        –  views 38 %",
        "bcd           4.0 s        –        –  ",
    ]
    assert notes({"a": other, "b": other}) == ["a, b: reckoned"]


def test_numbers_in_words() -> None:
    assert [duration(seconds) for seconds in (4.24, 59.2, 192, 7500, 3 * 86400 + 4 * 3600)] == [
        "4.2 s", "59 s", "3 min 12 s", "2 h 05 min", "3 d 4 h",
    ]  # fmt: skip
    assert [size(count) for count in (0, 8.2e8, 1.44e9)] == ["–", "820 MB", "1.4 GB"]
