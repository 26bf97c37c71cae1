"""The stages probe and finetune, from files to files, on a few real images."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.evaluation.efficiency import read_tuned
from sslflow.features.extract import write_features
from sslflow.features.pixels import pixels
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import save_encoder
from sslflow.runtime.files import read_json, sha256
from sslflow.runtime.rng import derive
from sslflow.stages import finetune, probe
from tests.conftest import write_dataset

PARAMS = """
compute: {device: cpu, threads: 1}
encoder: {name: resnet10, width: 4, stem_stride: 2}
extract: {}
probe:
  knn: {k: 5}
  linear: {regularisation: [1.0, 0.1, 0.01]}
finetune: {fractions: [0.5, 0.1], epochs: 1, min_steps: 3, batch_size: 16, encoder_lr: 2e-3, scratch_lr: 2e-3}
"""
NAME = "simclr-0"


def make(folder, images, labels, monkeypatch, splits=None) -> Dataset:
    """A project in `folder` after its stage extract: images, settings, an encoder with random weights, features."""
    dataset = write_dataset(folder / paths.PREPARED, images, labels, splits or ["train"] * 120 + ["test"] * 40)
    monkeypatch.chdir(folder)
    (folder / "params.yaml").write_text(PARAMS)
    torch.manual_seed(5)
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    file = paths.encoder("simclr", 0)
    save_encoder(encoder, file)
    write_features(paths.features("simclr", 0), encoder, sha256(file), dataset, torch.device("cpu"))
    return dataset


@pytest.fixture
def project(tmp_path, fashion, monkeypatch) -> Dataset:
    images, labels = fashion
    return make(tmp_path / "project", images[:160], labels[:160], monkeypatch)


def predictions(name: str) -> list[dict[str, str]]:
    with paths.predictions(name, 0).open(newline="") as handle:
        return list(csv.DictReader(handle))


def metrics(stage: str, name: str) -> dict[str, float]:
    return read_json(paths.metrics(stage, f"{name}-0"))


@pytest.mark.parametrize("name", ["simclr", "random", "pixels"])
def test_the_probe_says_what_it_found(project, name):
    probe.main(name, 0)
    found, table = metrics("probe", name), predictions(name)
    test = project.rows("test")
    assert [int(line["row"]) for line in table] == test.tolist()
    assert [line["actual"] for line in table] == [project.classes[label] for label in project.labels[test]]
    right = np.mean([line["actual"] == line["predicted"] for line in table])
    assert found["linear"] == pytest.approx(right)
    assert found["linear"] > 0.25
    assert found["knn"] > 0.25
    assert found["regularisation"] in (1.0, 0.1, 0.01)
    for metric in ("map", "recall1", "recall5"):
        assert found[metric] == pytest.approx(np.mean([float(line[metric]) for line in table]), abs=1e-6)
    assert 0.2 < found["map"] < found["recall1"] < found["recall5"] < 1


def test_large_images_are_averaged_for_the_control_and_small_ones_are_not(tmp_path, fashion, monkeypatch):
    images, labels = fashion
    small, large = (np.repeat(np.repeat(images[:160], times, axis=2), times, axis=3) for times in (1, 8))
    dataset = make(tmp_path / "small", small, labels[:160], monkeypatch)
    rows = np.array([3, 1, 159])
    whole = pixels(dataset, rows, torch.device("cpu"))
    assert torch.equal(whole, torch.from_numpy(small[rows]).flatten(1).float())
    probe.main("pixels", 0)
    assert metrics("probe", "pixels")["dim"] == 784
    assert "side" not in metrics("probe", "pixels")

    dataset = write_dataset(tmp_path / "large" / paths.PREPARED, large, labels[:160], ["train"] * 120 + ["test"] * 40)
    (tmp_path / "large/params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path / "large")
    monkeypatch.setattr("sslflow.features.pixels._BATCH", 7)
    found = pixels(dataset, rows, torch.device("cpu")).unflatten(1, (32, 32))
    means = torch.from_numpy(large[rows]).float().view(3, 32, 7, 32, 7).mean(dim=(2, 4))
    torch.testing.assert_close(found, means)
    probe.main("pixels", 0)
    assert metrics("probe", "pixels")["dim"] == 1024
    assert metrics("probe", "pixels")["side"] == 32
    assert metrics("probe", "pixels")["linear"] > 0.25


def test_the_control_is_what_pretraining_starts_from(project):
    """Features of the same random weights, saved as a run's encoder, give the same answers as the control."""
    torch.manual_seed(derive(0, "init"))
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    file = paths.encoder("simclr", 0)
    save_encoder(encoder, file)
    write_features(paths.features("simclr", 0), encoder, sha256(file), project, torch.device("cpu"))
    for name in ("simclr", "random"):
        probe.main(name, 0)
        finetune.main(name.replace("random", "scratch"), 0)
    assert predictions("simclr") == predictions("random")
    assert metrics("probe", "simclr") == metrics("probe", "random")
    tuned, scratch = metrics("finetune", "simclr"), metrics("finetune", "scratch")
    assert {**tuned, "seconds": 0} == {**scratch, "seconds": 0}


def test_what_test_labels_say_is_not_heard(tmp_path, fashion, monkeypatch, project):
    """Other labels on the test images: the accuracy falls, and nothing that was chosen or predicted changes."""
    probe.main("simclr", 0)
    before, table = metrics("probe", "simclr"), predictions("simclr")
    images, labels = fashion
    shifted = labels[:160].copy()
    shifted[120:] = (shifted[120:] + 1) % 10
    make(tmp_path / "other", images[:160], shifted, monkeypatch)
    probe.main("simclr", 0)
    after = metrics("probe", "simclr")
    assert [line["predicted"] for line in predictions("simclr")] == [line["predicted"] for line in table]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"linear", "knn", "map", "recall1", "recall5"}


def test_an_encoder_that_is_not_the_one_of_the_features_is_an_error(project):
    torch.manual_seed(6)
    save_encoder(Encoder(1, 28, name="resnet10", width=4, stem_stride=2), paths.encoder("simclr", 0))
    with pytest.raises(ValueError, match="not the encoder that"):
        probe.main("simclr", 0)
    assert not paths.metrics("probe", NAME).exists()


@pytest.mark.parametrize("split", ["train", "test"])
def test_features_that_are_not_finite_end_in_a_line_that_names_the_first_image(project, split):
    rows = project.rows(split)[[2, 5]]
    store = np.load(paths.features("simclr", 0) / "features.npy", mmap_mode="r+")
    store[rows[0], 1], store[rows[1], 0] = np.nan, np.inf
    store.flush()
    count, path = len(project.rows(split)), project.column("path", rows[:1])[0]
    with pytest.raises(ValueError, match=f"features of 2 of {count} images .*{path}; extract.precision: fp32"):
        probe.main("simclr", 0)
    assert not paths.metrics("probe", NAME).exists()


def test_probing_and_fine_tuning_leave_the_encoder_as_it_is(project):
    file = paths.encoder("simclr", 0)
    before = sha256(file)
    probe.main("simclr", 0)
    finetune.main("simclr", 0)
    assert sha256(file) == before


@pytest.mark.parametrize("name", ["simclr", "scratch"])
def test_fine_tuning_says_what_it_found(project, name):
    finetune.main(name, 0)
    found = metrics("finetune", name)
    assert 0 <= found["finetune_10pct"] <= 1
    assert 0 <= found["finetune_50pct"] <= 1
    assert found["labels_finetune_50pct"] > found["labels_finetune_10pct"] >= 10


def test_fine_tuning_on_a_few_labels_of_every_class_keeps_what_each_draw_answers(project, capsys):
    few = "finetune: {fractions: [0.5], each: [1, 100], draws: 2, epochs: 1, min_steps: 3, batch_size: 16}"
    text = Path("params.yaml").read_text().splitlines()
    Path("params.yaml").write_text("\n".join([*text[:-1], few]))
    finetune.main("scratch", 0)
    found = metrics("finetune", "scratch")
    rows, right = read_tuned(paths.tuned("scratch", 0))
    assert rows.tolist() == project.rows("test").tolist()
    assert set(right) == {("finetune", "each", 1, 0), ("finetune", "each", 1, 1)}
    assert found["finetune_each_1"] == pytest.approx(np.mean(list(right.values())))
    assert "100 labels of every class would be all there are" in capsys.readouterr().out


def test_without_labels_both_say_so_and_write_what_dvc_waits_for(tmp_path, fashion, monkeypatch, capsys):
    images, _ = fashion
    make(tmp_path / "unlabelled", images[:160], np.full(160, -1), monkeypatch, ["pool"] * 160)
    for name in ("simclr", "random", "pixels"):
        probe.main(name, 0)
        assert metrics("probe", name) == {}
        assert paths.predictions(name, 0).read_text() == "row,actual,predicted,neighbours\n"
    for name in ("simclr", "scratch"):
        finetune.main(name, 0)
        assert metrics("finetune", name) == {}
    assert capsys.readouterr().out.count("skipped") == 5
