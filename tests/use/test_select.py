"""Which images to label next: a table that grows and goes back in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslflow import cli
from sslflow.ingest.images.named import read_labels
from sslflow.use.embed import embed_folder
from sslflow.use.encoder import open_encoder
from sslflow.use.select import select

CPU = torch.device("cpu")


@pytest.fixture
def table(folder: Path, file: Path, tmp_path: Path, decoded: list[str]) -> Path:
    embed_folder(folder, open_encoder(str(file)), tmp_path / "features.parquet", CPU, print, batch=4)
    return tmp_path / "features.parquet"


def ran(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["sslflow", *words])
    return cli.main()


@pytest.mark.parametrize("by", ["typical", "covering"])
def test_a_table_is_filled_in_and_asks_for_others_then(
    table: Path, tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, sheet = tmp_path / "labels.csv", tmp_path / "sheet.png"
    asked = ["select", str(table), "--budget", "5", "-o", str(labels), "--by", by, "--device", "cpu"]
    asked += ["--sheet", str(sheet)]
    assert ran(monkeypatch, *asked) == 0
    first = labels.read_text().splitlines()
    assert first[0] == "path,label"
    assert all(line.endswith(",") for line in first[1:])
    assert len(set(first)) == 6
    assert np.asarray(Image.open(sheet)).std() > 10
    assert ran(monkeypatch, *asked) == 1, "a table that is being filled in is not overwritten"
    assert "is there already" in capsys.readouterr().err
    labels.write_text("\n".join([first[0], *(f"{line}cat" for line in first[1:])]) + "\n")
    assert ran(monkeypatch, *asked, "--labels", str(labels)) == 0
    assert "5 images to label, below the 5 that have a label" in capsys.readouterr().out
    second = labels.read_text().splitlines()
    assert [line.endswith(",cat") for line in second[1:]] == [True] * 5 + [False] * 5
    assert len({line.partition(",")[0] for line in second[1:]}) == 10
    assert read_labels(labels) == {line.partition(",")[0]: "cat" for line in first[1:]}


def test_what_can_t_be_chosen_is_said(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="22 images have no label: 23 of them"):
        select(table, 23, None, CPU)
    labels = tmp_path / "other.csv"
    labels.write_text("path,label\nelsewhere.png,cat\n")
    with pytest.raises(ValueError, match=r"1 of its 1 images are not in .* such as elsewhere"):
        select(table, 2, labels, CPU)
    with pytest.raises(ValueError, match="there is no such table"):
        select(tmp_path / "none.parquet", 2, None, CPU)
