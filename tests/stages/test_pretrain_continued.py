"""The stage pretrain from weights that exist, stopped and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from sslflow import paths
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.starts import Start, write_start
from sslflow.runtime.checkpoint import Checkpoint
from sslflow.runtime.files import read_json
from sslflow.settings.params import load
from sslflow.stages import pretrain
from tests.conftest import RECIPE, ROOT, first_images

STEPS = 8
RESTING = 2
"""Steps in which only the heads learn."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small labelled images."""
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        first_images(folder / "raw", 64)
        prepare(
            folder / "prepared", lambda line: None, source="idx", path=str(folder / "raw"), image_size=12, channels=3,
            workers=1, duplicates="keep",
        )  # fmt: skip
    return folder / "prepared"


def project(folder: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose settings continue weights of a tiny network of timm's."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    paths.PREPARED.parent.mkdir(parents=True)
    paths.PREPARED.symlink_to(prepared, target_is_directory=True)
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


def left() -> dict[str, object]:
    """All that the run leaves but what it counts of seconds."""
    files = paths.encoder("simclr", 0), paths.trained("simclr", 0), paths.curve("simclr", 0)
    kept = read_json(paths.metrics("pretrain", "simclr-0"))["kept_step"]
    return {**{file.name: file.read_bytes() for file in files[1:]}, "encoder": files[0].read_bytes(), "kept": kept}


def test_a_continued_run_that_is_stopped_ends_with_the_same_bits_and_the_same_snapshot(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the first step of the heads alone, and when the encoder has learned for some steps."""
    project(tmp_path / "whole", prepared, monkeypatch)
    pretrain.main("simclr", 0)
    whole = left()
    assert whole["kept"] not in (0, STEPS), "a snapshot from the middle, or the test shows less than it says"

    project(tmp_path / "stopped", prepared, monkeypatch)
    saved, save = [], Checkpoint.save

    def save_and_stop(checkpoint: Checkpoint, state: dict) -> None:
        save(checkpoint, state)
        saved.append(state["step"])
        if saved[-1] in (1, RESTING, int(whole["kept"]) + 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            pretrain.main("simclr", 0)
    pretrain.main("simclr", 0)
    assert saved == list(range(1, STEPS + 1))
    assert left() == whole
