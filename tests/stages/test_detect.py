"""The stage detect, from files to files, on a few small images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from box_fixtures import CLASSES, SIDE, prepared

from sslflow import paths
from sslflow.data.truth import Things
from sslflow.dense.average_precision import Detections, average_precision, matched
from sslflow.dense.boxes.detector import load_detector
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import save_encoder
from sslflow.stages import detect

PARAMS = """
compute: {device: cpu, threads: 1}
encoder: {name: resnet10, width: 8, stem_stride: 2}
detect: {fractions: [0.3, 1.0, 0.31], width: 16, epochs: 1, min_steps: 3, batch_size: 4}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    torch.manual_seed(1)
    save_encoder(Encoder(3, SIDE, name="resnet10", width=8, stem_stride=2), paths.encoder("simclr", 0))
    return tmp_path


def metrics(name: str) -> dict[str, Any]:
    return json.loads(paths.metrics("detect", name).read_text())


def test_detect_writes_what_it_found_and_what_found_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def without_bars(number: int, split: str, things: Things) -> Things:
        return Things(things.boxes[:1], things.labels[:1], things.ignored[:1]) if split == "train" else things

    dataset = prepared(paths.PREPARED, 8, 5, without_bars)
    detect.main("simclr", 0)
    said = capsys.readouterr().out
    assert "31 % of the images would be the same as another share: left out" in said
    assert "2 images: none shows bar, so hardly any is found" in said
    found = metrics("simclr-0")
    kept = {f"{p}_{what}_{f}pct" for p in ("frozen", "tuned") for what in ("map", "map50", "loss") for f in (25, 100)}
    kept |= {f"{what}_{share}pct" for what in ("images", "things") for share in (25, 100)}
    assert set(found) >= kept | {"seconds", "classes"}
    assert (found["images_25pct"], found["things_25pct"], found["images_100pct"]) == (2, 2, 8)

    table = pq.read_table(paths.detected("simclr", 0) / "detections.parquet")
    assert table.schema.names == ["protocol", "fraction", "row", "label", "score", "left", "top", "right", "bottom"]
    test = dataset.annotated_rows("test", "boxes")
    assert dataset.truth is not None
    things = dataset.truth.things(test)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    for protocol in ("frozen", "tuned"):
        own = (columns["protocol"] == protocol) & (columns["fraction"] == 1)
        boxes = np.stack([columns[side][own] for side in ("left", "top", "right", "bottom")], axis=1)
        again = Detections(
            np.searchsorted(test, columns["row"][own]), columns["label"][own], columns["score"][own], boxes
        )
        assert set(columns["row"][own]) <= set(test.tolist())
        mean, at_half = average_precision(matched(things, again, 2))
        assert mean.item() == pytest.approx(found[f"{protocol}_map_100pct"], abs=1e-9)
        assert at_half.item() == pytest.approx(found[f"{protocol}_map50_100pct"], abs=1e-9)

    pointed = pq.read_table(paths.detected("simclr", 0) / "localised.parquet")
    assert pointed["row"].to_pylist() == test.tolist()
    assert found["pointing"] == np.mean(pointed["hit"].to_pylist())
    assert found["pointing_centre"] == np.mean(pointed["centre"].to_pylist())
    assert 0 < found["pointing_chance"] < 0.5

    detector = load_detector(paths.detector("simclr", 0))
    assert detector.classes == list(CLASSES)
    assert detector.facts["detector"] == {"protocol": "tuned", "fraction": 1.0}
    assert detector.facts["images"]["fit"] == "crop"
    assert detector.facts["run"]["method"] == "simclr"


@pytest.mark.parametrize(("name", "protocol"), [("random", "frozen"), ("scratch", "tuned")])
def test_controls_are_random_weights_that_rest_or_learn(project: Path, name: str, protocol: str) -> None:
    prepared(paths.PREPARED, 4, 2)
    detect.main(name, 0)
    assert {one.partition("_")[0] for one in metrics(f"{name}-0") if "_map_" in one} == {protocol}
    table = pq.read_table(paths.detected(name, 0) / "detections.parquet")
    assert set(table["protocol"].to_pylist()) <= {protocol}
    # Weights that only learn with labels have nothing to say without.
    assert (paths.detected(name, 0) / "localised.parquet").exists() == ("pointing" in metrics(f"{name}-0"))
    assert ("pointing" in metrics(f"{name}-0")) == (name == "random")


def test_without_boxes_there_is_nothing_to_do(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(paths.PREPARED, 2, 2, lambda number, split, things: things if split == "train" else None)
    detect.main("simclr", 0)
    assert "skipped: there are no images with boxes to test on" in capsys.readouterr().out
    assert metrics("simclr-0") == {}
    assert pq.read_table(paths.detected("simclr", 0) / "detections.parquet").num_rows == 0
    with pytest.raises(ValueError, match="holds no detector"):
        load_detector(paths.detector("simclr", 0))
