"""The stage pretrain from weights that exist, stopped and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from sslflow import paths
from sslflow.monitoring.drift import Drift
from sslflow.networks.starts import Start, write_start
from sslflow.runtime.checkpoint import Checkpoint
from sslflow.runtime.files import read_json
from sslflow.settings.params import load
from sslflow.stages import pretrain
from tests.conftest import RECIPE, first_images, write_dataset

STEPS = 8
RESTING = 2
"""Steps in which only the heads learn."""
BEST = 5
"""The step whose encoder is the best."""


def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a few labelled images, whose settings continue weights of a tiny network of timm's."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_dataset(paths.PREPARED, *first_images(64), ["train"] * 64)
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), "theirs.safetensors")
    write_start("theirs", Start(weights="theirs.safetensors", network="test_efficientnet", side=32))
    params = load(RECIPE)
    params["start"] |= {"weights": "theirs", "heads_first": RESTING / STEPS, "lr": 1e-2, "blocks": 3}
    params["train"] |= {"epochs": 4, "batch_size": 32}
    params["methods"]["simclr"].pop("train", None)
    params["compute"] |= {"device": "cpu", "threads": 1}
    params["pretrain"] |= {"log_every": 1, "diagnostics": 32, "checkpoint_seconds": 1e-9}
    with Path("params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)


def left() -> tuple[int, list[bytes]]:
    """Which step was kept, and the files of the run that count no seconds."""
    files = paths.encoder("simclr", 0), paths.trained("simclr", 0), paths.curve("simclr", 0)
    return read_json(paths.metrics("pretrain", "simclr-0"))["kept_step"], [file.read_bytes() for file in files]


def test_a_continued_run_that_is_stopped_ends_with_the_same_bits_and_the_same_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the heads learn alone, as the encoder begins to, and when it is past its best."""
    remember = Drift._remember
    monkeypatch.setattr(Drift, "_remember", lambda drift, step, _: remember(drift, step, 1 - abs(step - BEST) / STEPS))
    project(tmp_path / "whole", monkeypatch)
    pretrain.main("simclr", 0)
    whole = left()
    assert whole[0] == BEST

    project(tmp_path / "stopped", monkeypatch)
    saved, save = [], Checkpoint.save

    def save_and_stop(checkpoint: Checkpoint, state: dict) -> None:
        save(checkpoint, state)
        saved.append(state["step"])
        if saved[-1] in (1, RESTING, BEST + 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            pretrain.main("simclr", 0)
    pretrain.main("simclr", 0)
    assert saved == list(range(1, STEPS + 1))
    assert left() == whole
