"""The stage depth, from files to files, and the report of it, on a few drawn images."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.dense.depth.estimation import predictor
from sslflow.dense.depth.estimator import load_estimator
from sslflow.dense.depth.scores import ERRORS
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import save_encoder
from sslflow.reporting.depth.rows import Rows
from sslflow.reporting.depth.section import section
from sslflow.runtime.files import read_json, sha256
from sslflow.runtime.tables import read_parquet
from sslflow.stages import depth, report
from tests.conftest import write_dataset
from tests.depth_fixtures import SIDE, deep_dataset, drawn

PARAMS = """
data: {kind: images}
compute: {device: cpu, threads: 1}
encoder: {name: resnet10, width: 4, stem_stride: 2}
depth: {fractions: [0.25, 0.5], width: 4, epochs: 1, min_steps: 2, batch_size: 6}
"""
RUN = {"methods": ["simclr"], "depth": ["simclr"], "depth_controls": ["random", "scratch", "mean"]}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Dataset:
    dataset = deep_dataset(tmp_path / paths.PREPARED)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    torch.manual_seed(5)
    save_encoder(Encoder(3, SIDE, name="resnet10", width=4, stem_stride=2), paths.encoder("simclr", 0))
    return dataset


def metrics(name: str) -> dict[str, float]:
    return read_json(paths.metrics("depth", f"{name}-0"))


def test_a_row_leaves_errors_and_maps_that_agree(project, capsys):
    depth.main("simclr", 0)
    found, rows = metrics("simclr"), project.annotated_rows("test", "depth")
    errors = read_parquet(paths.depths("simclr", 0) / "errors.parquet").to_pylist()
    for protocol, share in (("frozen", 0.25), ("tuned", 0.5)):
        own = [one for one in errors if (one["protocol"], one["fraction"]) == (protocol, share)]
        assert [one["row"] for one in own] == rows.tolist()
        means = {name: np.mean([one[name] for one in own]) for name in ERRORS}
        key = f"{100 * share:g}pct"
        assert found[f"{protocol}_abs_rel_{key}"] == pytest.approx(means["abs_rel"])
        assert found[f"{protocol}_rmse_{key}"] == pytest.approx(means["squared"] ** 0.5)
        assert found[f"{protocol}_silog_{key}"] == pytest.approx(means["log_variance"] ** 0.5)
    maps = read_parquet(paths.depths("simclr", 0) / "maps.parquet").to_pylist()
    assert {one["fraction"] for one in maps} == {0.5}
    told = {
        one["row"]: np.asarray(Image.open(io.BytesIO(one["map"]))) / 1000 for one in maps if one["protocol"] == "tuned"
    }
    own = {one["row"]: one for one in errors if (one["protocol"], one["fraction"]) == ("tuned", 0.5)}
    for row, one in told.items():
        true = project.read(np.array([row]))["depth"][0, 0].numpy()
        known = true > 0
        assert (np.abs(one - true)[known] / true[known]).mean() == pytest.approx(own[row]["abs_rel"], abs=1e-3)
    assert "depth simclr-0  tuned, 12 images (50 %), 2 steps: test error" in capsys.readouterr().out
    kept = load_estimator(paths.estimator("simclr", 0))
    assert kept.facts["estimator"] == {"protocol": "tuned", "fraction": 0.5}
    assert kept.facts["images"]["mean"] == list(project.format.mean)
    again = predictor(kept, project, torch.device("cpu"), "fp32", "channels_last")(np.array([*told]))
    assert np.abs(again[:, 0].numpy() - np.stack([*told.values()])).max() < 1e-3


def test_the_same_run_writes_the_same_bytes_and_controls_have_protocols_of_their_own(project):
    kept = []
    for _ in range(2):
        depth.main("scratch", 0)
        kept.append([sha256(paths.depths("scratch", 0) / f"{one}.parquet") for one in ("errors", "maps")])
    assert kept[0] == kept[1]
    depth.main("random", 0)
    depth.main("mean", 0)
    for name, protocol in (("scratch", "tuned"), ("random", "frozen"), ("mean", "mean")):
        assert {key.partition("_abs_rel")[0] for key in metrics(name) if "_abs_rel" in key} == {protocol}


def test_the_report_stands_rows_beside_their_controls(project):
    for name in ("simclr", "random", "scratch", "mean"):
        depth.main(name, 0)
    found = section(Rows({"run": RUN}, (0,), project))
    assert found
    assert found["absent"] == []
    (few, _), (many, lines) = found["blocks"]
    assert (few, many) == ("25 % of the depth maps", "50 % of the depth maps")
    assert [(line.title, line.way) for line in lines] == [
        ("simclr", "frozen"),
        ("random weights", "frozen"),
        ("simclr", "fine-tuned"),
        ("from scratch", "fine-tuned"),
        ("the mean map", "no image"),
    ]
    known = metrics("simclr")
    cell = lines[0].cells[0]
    assert cell.words == f"{100 * known['frozen_abs_rel_50pct']:.1f}"
    gap = known["frozen_abs_rel_50pct"] - metrics("random")["frozen_abs_rel_50pct"]
    assert abs(float(cell.gap[0].replace("−", "-")) - 100 * gap) < 0.06
    assert cell.verdict in ("better", "worse", "may be chance")
    assert lines[4].cells[0].verdict == ""
    assert found["said"][0].startswith("Depth, frozen, with 25 % of the maps: simclr is off by")
    assert [words for words, _ in found["examples"]] == ["From the best to the worst"]
    assert [words for words, _ in found["examples"][0][1][0].tiles] == ["image", "depth", "prediction", "error"]
    gone = Rows({"run": {**RUN, "depth": ["simclr", "byol"]}}, (0, 1), project)
    assert "byol: 0 of 2 seeds" in gone.absent()


def test_the_page_shows_it(project, tmp_path):
    more = {"run": {**RUN, "seeds": [0], "launch": "python -m"}, "methods": {"simclr": {}}, "report": {}}
    lines = (f"{section}: {json.dumps(content)}" for section, content in more.items())
    (tmp_path / "params.yaml").write_text(PARAMS + "\n".join(lines))
    for name in ("simclr", "mean"):
        depth.main(name, 0)
    report.main()
    page = (paths.REPORT / "index.html").read_text()
    text = " ".join(page.split("<script")[0].split())
    assert '<a href="#depth">How far away</a>' in text
    assert "Depth, fine-tuned, with 50 % of the maps: simclr is off by" in text
    assert "from scratch: 0 of 1 seeds" in text
    assert "32 images have depth maps (24 train, 8 test)" in text
    assert text.count("data:image/webp") >= 32
    found = metrics("simclr")
    assert read_json(paths.SCORES / "depth-simclr.json") == {
        "depth_error": pytest.approx(found["tuned_abs_rel_50pct"], abs=1e-3)
    }


def test_what_is_about_other_test_images_is_left_out(project, tmp_path, monkeypatch):
    depth.main("mean", 0)
    rows = Rows({"run": RUN}, (0,), deep_dataset(tmp_path / "other", test=6))
    assert rows.names() == []
    assert "the mean map: 0 of 1 seeds, 1 made of other test images: left out" in rows.absent()
    assert section(rows) is None


def test_without_depth_it_is_skipped_and_leaves_its_files(tmp_path, monkeypatch, capsys):
    images = drawn(6)[0]
    write_dataset(tmp_path / paths.PREPARED, images, np.full(6, -1), ["train"] * 4 + ["test"] * 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    depth.main("scratch", 0)
    assert "skipped: there are no images with depth to train and to test on" in capsys.readouterr().out
    assert metrics("scratch") == {}
    assert read_parquet(paths.depths("scratch", 0) / "errors.parquet").num_rows == 0
