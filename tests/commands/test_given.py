"""Weights that a command line names, before any work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from sslflow.commands.given import start_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), "theirs.safetensors")
    block = "theirs: {weights: theirs.safetensors, network: test_efficientnet, side: 32, mean: [0.1, 0.2, 0.3]}"
    Path("params.yaml").write_text(f"starts:\n  {block}\n  lost: {{weights: lost.pth, network: resnet18}}\n")


def test_a_name_in_starts_is_its_block_with_the_whole_path() -> None:
    assert start_settings("theirs", 12, 3) == {
        "weights": str(Path("theirs.safetensors").resolve()),
        "network": "test_efficientnet",
        "side": 32,
        "mean": [0.1, 0.2, 0.3],
    }


def test_whatever_else_may_be_a_file() -> None:
    assert start_settings("", 12, 3) is None
    assert start_settings("artifacts/encoders/simclr-0.safetensors", 12, 3) is None


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("package:efficientnet", "did you mean 'efficientnet-lite0'"),
        ("timm:resnet19", "no network 'resnet19' in timm"),
        ("lost", "lost.pth: there is no such file of weights"),
    ],
)
def test_weights_that_can_t_be_had_are_told(weights: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        start_settings(weights, 12, 3)
