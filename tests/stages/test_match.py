"""The stages match and match_control, from files to files, on a few images with captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_dataset

from sslflow import paths
from sslflow.data import captions
from sslflow.data.dataset import Dataset
from sslflow.data.tokens import FILE, encoded
from sslflow.ingest.tokenizing import train_tokenizer
from sslflow.networks.matcher import load_matcher
from sslflow.networks.starts import BUILT_IN, write_start
from sslflow.reporting.captions.rows import OWN, Row, Rows
from sslflow.reporting.captions.section import section
from sslflow.runtime.files import read_json, write_json
from sslflow.runtime.tables import read_parquet
from sslflow.stages import match, match_control, pretrain

PARAMS = """
compute: {device: cpu, threads: 1}
data: {source: folder}
encoder: {name: resnet10, width: 4, stem_stride: 2}
extract: {}
pretrain: {diagnostics: 8}
start: {}
match: {beams: 2}
train: {epochs: 1, batch_size: 8, lr: 1e-3}
views: {}
methods:
  clip: {dim: 8, text_encoder: {dim: 8, depth: 1, heads: 2}}
  virtex: {dim: 8, heads: 2}
"""
NAMES = ("shirt", "bag", "shoe", "coat")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fashion: tuple[np.ndarray, np.ndarray]) -> None:
    """24 images to learn from and 8 to test on, each called by its class, every other with a second caption."""
    monkeypatch.chdir(tmp_path)
    labels = fashion[1][:32] % 4
    splits = ["train"] * 24 + ["test"] * 8
    folder = tmp_path / paths.PREPARED
    write_dataset(folder, fashion[0][:32], labels, splits, shard=50)
    own = [[f"a {NAMES[label]}"] + ["worn"] * (row % 2) for row, label in enumerate(labels.tolist())]
    tokenizer = train_tokenizer([text for one in own for text in one], 60)
    tokenizer.save(str(folder / FILE))
    tokens = np.zeros((32, 2, 8), np.int32)
    for row, texts in enumerate(own):
        tokens[row, : len(texts)] = encoded(tokenizer, texts, 8)
    np.save(folder / "captions-00000.npy", tokens)
    pq.write_table(pa.table({"row": list(range(32)), "captions": own}), folder / captions.FILE)
    manifest = pq.read_table(folder / "manifest.parquet")
    counts = pa.array([len(one) for one in own], pa.int32())
    pq.write_table(manifest.append_column("captions", counts), folder / "manifest.parquet")
    facts = {"per_image": 2, "length": 8, "vocabulary": tokenizer.get_vocab_size()}
    file = folder / "dataset.json"
    write_json(file, read_json(file) | {"beside": {"captions": facts}})
    (tmp_path / "params.yaml").write_text(PARAMS)
    for name in BUILT_IN:
        write_start(name, None)


def metrics(name: str) -> dict[str, float]:
    return read_json(paths.metrics("match", f"{name}-0"))


def test_methods_and_controls_leave_answers_that_the_report_reads(project: None) -> None:
    for name in ("clip", "virtex"):
        pretrain.main(name, 0)
        match.main(name, 0)
        assert {"own_zero_shot", "own_texts_r1", "nearest_told_f1", "zero_shot_chance"} < set(metrics(name))
        images = read_parquet(paths.matched(name, 0) / "images.parquet").to_pylist()
        own = [one for one in images if one["way"] == "own"]
        assert len(own) == 8
        assert metrics(name)["own_told_f1"] == pytest.approx(np.mean([one["told_f1"] for one in own]))
    matcher = load_matcher(paths.matched("clip", 0) / "matcher.safetensors")
    assert matcher.facts["images"]["mean"]
    assert matcher.of_texts(["a shoe"]).shape == (1, 8)
    assert not (paths.matched("virtex", 0) / "matcher.safetensors").exists()
    for name in ("blind", "pixels", "random"):
        match_control.main(name, 0)
    assert metrics("blind")["nearest_texts_rank"] >= 1

    params = {"run": {"match": ["clip", "virtex"], "match_controls": ["random", "pixels", "blind"]}}
    rows = Rows(params, [0], Dataset())
    found = section(rows, 0)
    assert found
    assert len(found["lines"]) == 7
    assert rows.means()["clip"]["zero_shot"] == pytest.approx(metrics("clip")["own_zero_shot"])
    assert [name for _, name in found["columns"]][:2] == ["zero_shot", "told_f1"]
    gap = rows.gap(Row("clip", OWN), Row("pixels", "nearest"), "zero_shot")
    assert gap
    expected = metrics("clip")["own_zero_shot"] - metrics("pixels")["nearest_zero_shot"]
    assert gap.mean == pytest.approx(expected)
    assert len(found["found_texts"][1]) == 8
    assert all(search.found for search in found["found_images"][1])


def test_without_captions_it_is_skipped(project: None, capsys: pytest.CaptureFixture[str]) -> None:
    file = paths.PREPARED / "dataset.json"
    write_json(file, {key: value for key, value in read_json(file).items() if key != "beside"})
    match_control.main("blind", 0)
    assert "skipped: the images have no captions" in capsys.readouterr().out
    assert metrics("blind") == {}
    with pytest.raises(ValueError, match=r"clip learns from captions, and there are none: name them in data\.captions"):
        pretrain.main("clip", 0)


def test_answers_of_other_test_images_are_left_out(project: None) -> None:
    match_control.main("blind", 0)
    match_control.main("pixels", 1)
    match_control.main("pixels", 0)
    params = {"run": {"match_controls": ["pixels", "blind"]}}
    rows = Rows(params, [0, 1], Dataset())
    pixels, blind = Row("pixels", "nearest"), Row("blind", "nearest")
    assert rows.found == [pixels, blind]
    assert [len(rows.made(row)) for row in rows.found] == [2, 1]
    gap = rows.gap(pixels, blind, "told_f1")
    assert gap
    assert gap.mean == pytest.approx(metrics("pixels")["nearest_told_f1"] - metrics("blind")["nearest_told_f1"])
    (paths.matched("blind", 0) / "images.parquet").unlink()
    match_control.main("blind", 1)
    again = Rows(params, [0], Dataset())
    assert again.found == [pixels]
    assert again.gap(pixels, blind, "told_f1") is None

    manifest = pq.read_table(paths.PREPARED / "manifest.parquet")
    counts = [0 if row == 31 else count for row, count in enumerate(manifest["captions"].to_pylist())]
    column = manifest.schema.get_field_index("captions")
    manifest = manifest.set_column(column, "captions", pa.array(counts, pa.int32()))
    pq.write_table(manifest, paths.PREPARED / "manifest.parquet")
    assert Rows(params, [0, 1], Dataset()).found == []
    assert section(Rows(params, [0, 1], Dataset()), 0) is None
