"""Results of benchmarks hold for what they were measured with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import layer_decay, pseudolabels
from sslflow import paths
from sslflow.runtime.files import write_json, write_text


def test_layer_decay_is_measured_again_for_other_images_and_another_encoder(tmp_path: Path) -> None:
    encoder, manifest = tmp_path / paths.encoder("simclr", 0), tmp_path / paths.PREPARED / "manifest.parquet"
    write_text(encoder, "1")
    write_text(manifest, "1")
    made = [layer_decay.key(tmp_path, row, 0, {}) for row in layer_decay.ROWS]
    assert made == [layer_decay.key(tmp_path, row, 0, {}) for row in layer_decay.ROWS]
    write_text(encoder, "2")
    lite0, simclr = (layer_decay.key(tmp_path, row, 0, {}) for row in layer_decay.ROWS)
    assert (lite0 == made[0], simclr == made[1]) == (True, False)
    write_text(manifest, "2")
    assert layer_decay.key(tmp_path, "lite0", 0, {}) != made[0]


def test_what_was_made_with_other_settings_or_nobody_knows_which_is_not_kept(tmp_path: Path) -> None:
    file, now = tmp_path / "tuned.json", pseudolabels.key({"epochs": 1})
    assert pseudolabels.kept(file, now) is None
    write_json(file, {"found": []})
    assert pseudolabels.kept(file, now) is None
    write_json(file, {"found": [], "key": now})
    assert pseudolabels.kept(file, now) is not None
    assert pseudolabels.kept(file, pseudolabels.key({"epochs": 2})) is None


def test_rows_of_other_code_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Data:
        groups = np.arange(4)

        def __init__(self, folder: Path) -> None: ...

        def labelled_rows(self, split: str) -> np.ndarray:
            return np.arange(4)

    def tuned(data: str, seed: int, above: float) -> tuple[list[dict[str, Any]], str]:
        one = {"labels": 10, "pseudolabels": 3, "right": [1, 0, 1, 1]}
        return [one, {**one, "labels": 1}], "abc1234: evaluation.named" if above == 0.3 else ""

    monkeypatch.setattr(pseudolabels, "Dataset", Data)
    monkeypatch.setattr(pseudolabels, "tuned", tuned)
    monkeypatch.setattr(pseudolabels, "probed", lambda *asked: (np.ones(4), ""))
    lines = list(pseudolabels.table(["emoji"], [0, 1]))
    marked = {line.split("|")[2].strip() for line in lines if "‡ |" in line}
    assert marked == {"fine-tuned, above 0.3 ‡"}
    assert "emoji, fine-tuned, above 0.3 (abc1234: evaluation.named)" in lines[-1]
