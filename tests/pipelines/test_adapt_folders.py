"""Adaptation of two folders outside the pipeline."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file

from pipelines import adapt_folders as adaptation
from pipelines.adapt_folders import adapt_folders
from sslflow import paths
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import save_encoder
from sslflow.networks.starts import Start, is_name, read_start
from sslflow.runtime.files import write_text
from sslflow.settings.params import load
from tests.conftest import RECIPE


@pytest.fixture
def folders(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A source of three classes of grey, a target with a fourth; a project's params.yaml with tiny settings."""
    monkeypatch.chdir(tmp_path)
    params = load(RECIPE)
    params["encoder"] = {"name": "resnet10", "width": 4, "stem_stride": 2}
    params["adapt"]["train"] |= {"steps": 10}
    params["data"]["workers"] = 1
    params["train"] |= {"epochs": 1, "batch_size": 16}
    with Path("params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)
    numbers = np.random.default_rng(0)
    for domain, levels in (("source", (30, 120, 210)), ("target", (40, 130, 220, 170))):
        for level in levels:
            folder = tmp_path / domain / (f"grey {level}" if domain == "source" else "")
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(8):
                pixels = np.clip(level + numbers.normal(0, 8, (12, 12)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{level}-{number}.png")
    return tmp_path / "source", tmp_path / "target"


def test_every_target_image_gets_a_row(folders: tuple[Path, Path]):
    torch.manual_seed(0)
    save_encoder(Encoder(1, 12, name="resnet10", width=4, stem_stride=2), Path("encoder.safetensors"))
    adapt_folders(*folders, Path("out/predictions.parquet"), encoder=Path("encoder.safetensors"))
    table = pq.read_table("out/predictions.parquet")
    assert table.column_names == ["path", "predicted", "nearest_class", "confidence", "unknownness", "group"]
    assert sorted(table["path"].to_pylist()) == sorted(file.name for file in folders[1].iterdir())
    assert set(table["nearest_class"].to_pylist()) <= {"grey 30", "grey 120", "grey 210"}


def test_weights_that_exist_are_handed_to_the_stages(folders: tuple[Path, Path], monkeypatch):
    """The stage `scan` writes down what is known of them; the others are not run here."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), "theirs.safetensors")
    start = {"weights": str(Path("theirs.safetensors").resolve()), "network": "test_efficientnet", "side": 32}
    ran, run = [], adaptation._stage

    def stage(folder: Path, name: str, *words: str) -> None:
        ran.append(name)
        if name == "scan":
            run(folder, name, *words)
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            weights = load()["adapt"]["weights"]
            assert is_name(weights)
            assert read_start(weights) == Start(**start)
            assert load()["domains"]["folders"]["image_size"] == 12
        table = pa.table({"path": ["a"], "predicted": ["unknown"], "actual": [""]})
        (folder / paths.adapted("gated_dance", 0)).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / paths.adapted("gated_dance", 0) / "as_is-pretrained.parquet")

    monkeypatch.setattr(adaptation, "_stage", stage)
    adapt_folders(*folders, Path("predictions.parquet"), start=start, image_size=12)
    assert ran == ["scan", "domains", "adapt"]
    assert pq.read_table("predictions.parquet").num_rows == 1


def test_without_an_encoder_one_is_pretrained_on_both_folders_and_used_again(folders: tuple[Path, Path], capfd):
    adapt_folders(*folders, Path("first.parquet"), image_size=12, channels=1)
    assert "pretrain simclr-0" in capfd.readouterr().out
    adapt_folders(*folders, Path("second.parquet"), image_size=12, channels=1)
    assert "pretrain simclr-0" not in capfd.readouterr().out
    assert pq.read_table("first.parquet").equals(pq.read_table("second.parquet"))


def test_an_encoder_of_other_images_or_code_is_not_used_again(folders: tuple[Path, Path], tmp_path: Path, monkeypatch):
    work, code, pretrained = tmp_path / "work", tmp_path / "code/sslflow/inner/train.py", []

    def stage(folder: Path, name: str, *_: str) -> None:
        if name == "prepare":
            (folder / paths.PREPARED).mkdir(parents=True)
        else:
            pretrained.append(name)
            write_text(folder / paths.encoder("simclr", 0), "an encoder")

    def anew() -> bool:
        before = len(pretrained)
        adaptation._pretrain(work, *folders, "simclr", 0)
        return len(pretrained) > before

    monkeypatch.setattr(adaptation, "_stage", stage)
    monkeypatch.setattr(adaptation, "ROOT", tmp_path / "code")
    write_text(code, "RATE = 1")
    work.mkdir()
    assert anew()
    assert not anew()
    shutil.copy(folders[1] / "40-0.png", folders[1] / "added.png")
    assert anew()
    os.utime(folders[0] / "grey 30/30-0.png", (1, 1))
    assert not anew(), "another time is no other image"
    changed = folders[1] / "40-1.png"
    facts = changed.stat()
    changed.write_bytes(bytes(reversed(changed.read_bytes())))
    os.utime(changed, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (changed.stat().st_size, changed.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    assert anew(), "another content of the same size and time is another image"
    (folders[1] / "40-2.png").rename(folders[1] / "spare")
    (folders[1] / "40-3.png").rename(folders[1] / "40-2.png")
    (folders[1] / "spare").rename(folders[1] / "40-3.png")
    assert anew(), "two images that have changed places"
    (work / "made_of").write_bytes(b"\xff")
    assert anew()
    (work / paths.encoder("simclr", 0)).write_bytes(b"cut")
    assert anew(), "an encoder that is not the one that was made"
    (folders[1] / "added.png").unlink()
    assert anew()
    write_text(code, "RATE = 2")
    assert anew()
    assert not anew()
    (work / paths.encoder("simclr", 0)).unlink()
    assert anew()


def test_what_is_wrong_is_said(folders: tuple[Path, Path]):
    with pytest.raises(ValueError, match="no such folder"):
        adapt_folders(Path("nowhere"), folders[1], Path("p.parquet"))
    Path("other.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="no such file"):
        adapt_folders(*folders, Path("p.parquet"), encoder=Path("missing.safetensors"))
    shutil.rmtree(folders[0])
    folders[0].mkdir()
    torch.manual_seed(0)
    save_encoder(Encoder(1, 12, name="resnet10", width=4, stem_stride=2), Path("encoder.safetensors"))
    with pytest.raises(ValueError, match="domains folders failed"):
        adapt_folders(*folders, Path("p.parquet"), encoder=Path("encoder.safetensors"))
